#include "container/detect.h"

#include <string_view>

#include "base/error.h"

namespace nibble::container {

namespace {

struct Foreign {
  std::string_view magic;
  ErrorCode code;
  std::string_view message;
};

constexpr std::string_view kOldGgml = "a GGML file from before GGUF; convert the model anew";
constexpr std::string_view kPickle =
    "a PyTorch checkpoint; convert it to safetensors first (it may hold code, so it is not read)";

constexpr Foreign kForeign[] = {
    {"version https://git-lfs", ErrorCode::kFormat,
     "a Git LFS pointer, not the file itself; fetch the content with 'git lfs pull' or download the file"},
    {"lmgg", ErrorCode::kUnsupported, kOldGgml},
    {"fmgg", ErrorCode::kUnsupported, kOldGgml},
    {"tjgg", ErrorCode::kUnsupported, kOldGgml},
    {"FUGG", ErrorCode::kUnsupported, "a big-endian GGUF file; only little-endian ones are supported"},
    {std::string_view("PK\x03\x04", 4), ErrorCode::kUnsupported, kPickle},
    {std::string_view("\x80\x02", 2), ErrorCode::kUnsupported, kPickle},
    {"<!DOCTYPE", ErrorCode::kFormat, "a web page; the download went wrong"},
    {"<html", ErrorCode::kFormat, "a web page; the download went wrong"},
};

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

void refuse_foreign(std::span<const std::byte> bytes) {
  const std::string_view text = text_of(bytes);
  if (text.empty()) fail(ErrorCode::kFormat, "the file is empty");
  for (const Foreign& foreign : kForeign) {
    if (text.starts_with(foreign.magic)) fail(foreign.code, "{}", foreign.message);
  }
}

Kind detect(std::span<const std::byte> bytes) {
  const std::string_view text = text_of(bytes);
  if (text.starts_with("GGUF")) return Kind::kGguf;
  // The header of a safetensors file follows its 8-byte length; this goes first because a length may look like any
  // magic.
  if (text.size() > 8 && text[8] == '{' && text[6] == '\0' && text[7] == '\0') return Kind::kSafetensors;
  refuse_foreign(bytes);
  if (text.starts_with('{')) fail(ErrorCode::kFormat, "a JSON file; open the folder it lies in, or a file of weights");
  fail(ErrorCode::kFormat, "neither a GGUF nor a safetensors file");
}

}  // namespace nibble::container
