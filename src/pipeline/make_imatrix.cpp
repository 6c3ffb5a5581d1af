#include "base/error.h"
#include "calib/collect.h"
#include "calib/imatrix.h"
#include "json/json.h"
#include "nibble/imatrix.h"
#include "pipeline/loading.h"

namespace nibble {

namespace {

calib::ImatrixFormat form_of(const ImatrixRequest& request) {
  if (request.format == "gguf") return calib::ImatrixFormat::kGguf;
  if (request.format == "dat") return calib::ImatrixFormat::kDat;
  if (!request.format.empty()) fail(ErrorCode::kInvalidArgument, "unknown format '{}': gguf or dat", request.format);
  return request.out.extension() == ".dat" ? calib::ImatrixFormat::kDat : calib::ImatrixFormat::kGguf;
}

calib::Imatrix collect(ExecContext& context, const ImatrixRequest& request) {
  const auto source = model::ModelSource::open(request.model);
  const auto tokenizer = pipeline::load_tokenizer(*source);
  const calib::TokenChunks chunks =
      calib::chunk_file(*tokenizer, request.text, {calib::Protocol::kLlamaCpp, request.context, request.chunks});
  const auto path = request.fast ? model::MathPath::kFast : model::MathPath::kExact;
  calib::Imatrix imatrix = request.dry_run
                               ? calib::planned_imatrix(source->spec(), chunks)
                               : calib::collect_imatrix(context, *pipeline::load_model(context, source, path), chunks);
  imatrix.datasets = {request.text.string()};
  return imatrix;
}

}  // namespace

Report make_imatrix(const RunContext& run, const ImatrixRequest& request) {
  if (request.text.empty() && request.merge.empty())
    fail(ErrorCode::kInvalidArgument, "give a text, or files to merge");
  if (!request.text.empty() && request.model.empty()) fail(ErrorCode::kInvalidArgument, "a text needs a model to run");
  if (request.out.empty()) fail(ErrorCode::kInvalidArgument, "no output file");
  const calib::ImatrixFormat form = form_of(request);
  OwnedExecContext context(run);
  calib::Imatrix imatrix;
  if (!request.text.empty()) imatrix = collect(*context, request);
  for (const std::filesystem::path& file : request.merge) {
    const calib::Imatrix other = calib::load_imatrix(file);
    // The older form does not say how long its chunks are.
    if (imatrix.chunk_size == 0) imatrix.chunk_size = other.chunk_size > 0 ? other.chunk_size : request.context;
    calib::merge_imatrix(imatrix, other);
  }
  if (!request.dry_run) calib::save_imatrix(imatrix, request.out, form);

  const std::uint64_t bytes = calib::imatrix_bytes(imatrix, form);
  json::Value object;
  object.set("out", request.out.string());
  object.set("format", form == calib::ImatrixFormat::kGguf ? "gguf" : "dat");
  object.set("chunks", imatrix.chunk_count);
  object.set("context", imatrix.chunk_size);
  object.set("entries", static_cast<std::int64_t>(imatrix.entries.size()));
  object.set("bytes", bytes);
  object.set("dry_run", request.dry_run);
  std::string text = format_text("{} {}: {} chunks of {} tokens, {} weights, {}\n",
                                 request.dry_run ? "would write" : "wrote", request.out.string(), imatrix.chunk_count,
                                 imatrix.chunk_size, imatrix.entries.size(), format_bytes(bytes));
  return {std::move(text), json::dump(object)};
}

}  // namespace nibble
