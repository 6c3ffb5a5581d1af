// Rotated models through the whole corridor: files of any form are the same function, and better to round.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/atomic_file.h"
#include "base/error.h"
#include "calib/imatrix.h"
#include "container/checkpoint.h"
#include "encoding/encoding.h"
#include "model/source.h"
#include "nibble/evaluate.h"
#include "nibble/quantize.h"
#include "nibble/sweep.h"
#include "testing/logits.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using testing::TemporaryFolder;

const std::string kRoot = NIBBLE_SOURCE_DIR;

class Rotated : public ::testing::Test {
 protected:
  static QuantizeRequest request(const std::string& input, const std::string& output, const std::string& type) {
    QuantizeRequest r;
    r.input = input;
    r.output = output;
    r.type = type;
    r.transforms = {"rotate"};
    return r;
  }
  static testing::LogitsError error(const std::string& model, const std::string& reference) {
    return testing::compare_logits(testing::logits_of(model::ModelSource::open(model)),
                                   testing::logits_of(model::ModelSource::open(reference)));
  }
  static void convert(const std::string& input, const std::string& output) {
    ConvertRequest r;
    r.input = input;
    r.output = output;
    r.type = "f32";
    convert_model(r);
  }
  std::string tiny(const std::string& type, bool tied = false) const {
    json::Value config = testing::tiny_config(type);
    config.set("tie_word_embeddings", tied);
    testing::write_tiny_model(folder_ / type, config);
    return folder_ / type;
  }
  static std::string message_of(const QuantizeRequest& r) {
    try {
      quantize_model(r);
    } catch (const Error& error) {
      return error.what();
    }
    return "(no error)";
  }

  TemporaryFolder folder_;
};

// Weights that files hold transposed, in parts, in strides, by pairs; heads that were the embedding.
TEST_F(Rotated, FilesOfPlainNumbersAreTheSameFunction) {
  for (const std::string type : {"llama", "gpt2", "falcon", "cohere", "gemma", "deepseek_v3", "gpt_oss", "qwen2_moe"}) {
    SCOPED_TRACE(type);
    const std::string model = tiny(type, type != "deepseek_v3" && type != "gpt_oss");
    const std::string file = folder_ / (type + ".gguf"), again = folder_ / (type + "-again");
    quantize_model(request(model, file, "f32"));
    EXPECT_LE(error(file, model).relative, 1e-5);
    convert(file, again);  // to a folder
    EXPECT_LE(error(again, model).relative, 1e-5);
  }
}

std::vector<std::byte> data_of(const container::TensorEntry& entry) {
  return {entry.view.data().begin(), entry.view.data().end()};
}

TEST_F(Rotated, TheSameFromFolderAndFileForAnyThreads) {
  const std::string model = tiny("llama", true);
  convert(model, folder_ / "f32.gguf");
  quantize_model(request(model, folder_ / "a.gguf", "q4_0"), {.threads = 1});
  quantize_model(request(folder_ / "f32.gguf", folder_ / "b.gguf", "q4_0"), {.threads = 3});
  const auto a = container::open(folder_ / "a.gguf"), b = container::open(folder_ / "b.gguf");
  ASSERT_EQ(a->tensors().size(), b->tensors().size());
  EXPECT_NE(a->find("output.weight"), nullptr);
  for (const container::TensorEntry& entry : a->tensors()) {
    EXPECT_EQ(entry.view.encoding, b->at(entry.name).view.encoding) << entry.name;
    EXPECT_EQ(data_of(entry), data_of(b->at(entry.name))) << entry.name;
  }
}

TEST_F(Rotated, FoldersSayThatTheHeadIsItsOwn) {
  const std::string model = tiny("llama", true);
  const QuantizeReport report = quantize_model(request(model, folder_ / "out", "int8-channel"));
  EXPECT_THAT(report.notes, ::testing::Contains(HasSubstr("the embedding is no longer the head")));
  EXPECT_FALSE(json::parse_file(folder_ / "out/config.json").get("tie_word_embeddings", true));
  EXPECT_LE(error(folder_ / "out", model).relative, 0.05);
}

// Bytes of a rotated weight are never those of the input, though the type is.
TEST_F(Rotated, OfQuantizedFilesAreQuantizedAgain) {
  QuantizeRequest first = request(tiny("llama"), folder_ / "q8.gguf", "q8_0");
  first.transforms.clear();
  quantize_model(first);
  const QuantizeReport report = quantize_model(request(folder_ / "q8.gguf", folder_ / "again.gguf", "q8_0"));
  const auto query = std::ranges::find(report.tensors, "blk.0.attn_q.weight", &TensorReport::name);
  ASSERT_NE(query, report.tensors.end());
  EXPECT_NE(query->method, "copy");
  EXPECT_GT(query->relative_mse, 0);
  EXPECT_LE(error(folder_ / "again.gguf", folder_ / "q8.gguf").relative, 0.03);
}

TEST_F(Rotated, WhatCannotBeSaysWhy) {
  EXPECT_THAT(message_of(request(tiny("gemma2"), folder_ / "out.gguf", "q8_0")),
              HasSubstr("a norm behind a half of the block scales the residual stream"));
  QuantizeRequest learned = request(tiny("llama"), folder_ / "out.gguf", "q4_0");
  learned.imatrix = "some.gguf";
  EXPECT_THAT(message_of(learned), HasSubstr("is of the model as it was"));
  learned.imatrix.clear();
  learned.transforms = {"rotate", "awq"};
  EXPECT_THAT(message_of(learned), HasSubstr("transform 'awq' learns from a text"));
  learned.transforms = {"rotates"};
  EXPECT_THAT(message_of(learned), HasSubstr("awq, rotate"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.gguf"));
}

double divergence(const std::string& model, const std::string& reference) {
  EvaluateRequest r;
  r.model = model;
  r.reference = reference;
  r.text = kRoot + "/text/books-eval.txt";
  r.context = 256;
  r.chunks = 8;
  r.exact = true;
  return json::parse(evaluate({}, r).json).at("kld_mean_exact").as_number();
}

// The median over the tokens: rounding sends one or the other of them, rotated or not, to another expert.
double usual_error(const std::string& path, const std::string& reference) {
  const auto source = model::ModelSource::open(reference);
  const std::vector<float> got = testing::logits_of(model::ModelSource::open(path)), want = testing::logits_of(source);
  const auto vocab = static_cast<std::ptrdiff_t>(source->spec().vocab);
  std::vector<double> errors;
  for (auto g = got.begin(), w = want.begin(); w != want.end(); g += vocab, w += vocab)
    errors.push_back(testing::compare_logits({g, g + vocab}, {w, w + vocab}).relative);
  std::ranges::sort(errors);
  return errors[errors.size() / 2];
}

// With a text, and together with what is done block by block.
TEST_F(Rotated, GoesWithWhatIsDoneBlockByBlock) {
  for (const std::string type : {"llama", "gpt2", "qwen2_moe"}) {
    SCOPED_TRACE(type);
    const std::string model = tiny(type, true);
    QuantizeRequest r = request(model, folder_ / (type + ".gguf"), "q8_0");
    r.transforms = {"awq", "rotate"};
    r.method = "rtn";
    r.calib = kRoot + "/text/books-calib.txt";
    r.calib_tokens = 512;
    r.calib_context = 64;
    quantize_model(r);
    EXPECT_LE(usual_error(r.output, model), 0.05);
  }
}

class RotatedSlow : public Rotated {};

TEST_F(RotatedSlow, StatisticsAreOfTheRotatedModel) {
  const std::string model = kRoot + "/models/books-7m";
  const auto loss = [&](const std::string& method) {
    QuantizeRequest r = request(model, folder_ / "out.gguf", "q4_0");
    r.method = method;
    r.calib = kRoot + "/text/books-calib.txt";
    r.calib_tokens = 4096;
    r.calib_context = 256;
    quantize_model(r);
    return divergence(r.output, model);
  };
  const double rtn = loss("rtn"), gptq = loss("gptq");
  EXPECT_LT(gptq, 0.8 * rtn);
  EXPECT_LT(rtn, 0.01);
}

TEST_F(Rotated, IsARowOfASweep) {
  SweepRequest r;
  r.model = tiny("llama");
  r.types = {"q4_0"};
  r.methods = {"rtn"};
  r.transforms = {"none", "rotate", "rotate+awq"};
  r.texts = {kRoot + "/text/books-eval.txt"};
  r.context = 64;
  r.chunks = 2;
  const std::string text = sweep({}, r).text;
  EXPECT_THAT(text, HasSubstr("| q4_0 | rtn | rotate | "));
  EXPECT_THAT(text, HasSubstr("transform 'awq' learns from a text"));
}

}  // namespace
}  // namespace nibble
