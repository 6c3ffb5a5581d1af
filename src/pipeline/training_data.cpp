#include "pipeline/training_data.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/format.h"
#include "pipeline/calibrated.h"
#include "pipeline/loading.h"
#include "train/jsonl_data.h"
#include "train/text_data.h"

namespace nibble::pipeline {

namespace {

std::vector<std::filesystem::path> paths(const std::vector<std::string>& names) { return {names.begin(), names.end()}; }

std::int64_t choose_context(const model::ModelSpec& spec, std::int64_t asked) {
  if (asked == 0) return default_context(spec);
  if (spec.context > 0 && asked > spec.context)
    fail(ErrorCode::kInvalidArgument, "sequences of {} tokens, but the model's context is {}", asked, spec.context);
  return asked;
}

void add(train::ExampleSet set, const char* kind, TrainingData& data) {
  data.notes.push_back(format_text("{}: {} examples of {} tokens, {} of them learned", kind, set.examples.size(),
                                   set.tokens, set.learned));
  if (set.truncated > 0)
    data.notes.push_back(
        format_text("{} examples were longer than {} tokens and are cut off there", set.truncated, data.context));
  std::ranges::move(set.examples, std::back_inserter(data.examples));
}

}  // namespace

TrainingData read_training_data(ExecContext& context, const model::ModelSource& source, const TrainRequest& request) {
  if (request.texts.empty() && request.data.empty())
    fail(ErrorCode::kInvalidArgument, "nothing to train on: give --text FILE or --data FILE.jsonl");
  if (!(request.held_out >= 0 && request.held_out < 1))
    fail(ErrorCode::kInvalidArgument, "a share of {} of the examples cannot be held out", request.held_out);
  TrainingData data;
  data.context = choose_context(source.spec(), request.context);
  const auto tokenizer = load_tokenizer(source);
  if (!request.texts.empty())
    add(train::read_texts(context, *tokenizer, paths(request.texts), data.context), "texts", data);
  if (!request.data.empty()) {
    train::JsonlOptions options;
    options.context = data.context;
    add(train::read_jsonl(context, *tokenizer, paths(request.data), options), "JSON lines", data);
  }
  const auto n = static_cast<std::ptrdiff_t>(static_cast<double>(data.examples.size()) * request.held_out);
  if (n == 0) return data;
  data.held_out.assign(std::make_move_iterator(data.examples.end() - n), std::make_move_iterator(data.examples.end()));
  data.examples.erase(data.examples.end() - n, data.examples.end());
  return data;
}

calib::TokenChunks chunks_of(const TrainingData& data, std::int64_t tokens) {
  calib::TokenChunks chunks;
  chunks.protocol = calib::Protocol::kWindow;
  chunks.context = data.context;
  // Spread over all of them.
  std::vector<const train::Example*> full;
  for (const train::Example& example : data.examples) {
    if (std::ssize(example.tokens) == data.context) full.push_back(&example);
  }
  const auto wanted = static_cast<std::size_t>(std::max<std::int64_t>(1, tokens / data.context));
  if (full.empty())
    fail(ErrorCode::kInvalidArgument,
         "no example fills a sequence of {} tokens, which blocks are quantized with: give "
         "a text with --text, or a smaller --ctx",
         data.context);
  const std::size_t n = std::min(full.size(), wanted);
  for (std::size_t i = 0; i < n; ++i) {
    const train::Example& example = *full[i * full.size() / n];
    chunks.tokens.insert(chunks.tokens.end(), example.tokens.begin(), example.tokens.end());
  }
  chunks.n_chunks = static_cast<std::int64_t>(n);
  return chunks;
}

}  // namespace nibble::pipeline
