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
  if (request.dry_run) {
    calib::Imatrix planned;
    planned.chunk_count = chunks.n_chunks;
    planned.chunk_size = chunks.context;
    return planned;
  }
  const auto path = request.fast ? model::MathPath::kFast : model::MathPath::kExact;
  const auto model = pipeline::load_model(context, source, path);
  calib::Imatrix imatrix = calib::collect_imatrix(context, *model, chunks);
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

  json::Value object;
  object.set("out", request.out.string());
  object.set("format", form == calib::ImatrixFormat::kGguf ? "gguf" : "dat");
  object.set("chunks", imatrix.chunk_count);
  object.set("context", imatrix.chunk_size);
  object.set("entries", static_cast<std::int64_t>(imatrix.entries.size()));
  std::string text = request.dry_run
                         ? format_text("would write {}: {} chunks of {} tokens\n", request.out.string(),
                                       imatrix.chunk_count, imatrix.chunk_size)
                         : format_text("{} holds {} chunks of {} tokens, {} weights\n", request.out.string(),
                                       imatrix.chunk_count, imatrix.chunk_size, imatrix.entries.size());
  return {std::move(text), json::dump(object)};
}

}  // namespace nibble
