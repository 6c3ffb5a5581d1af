#include "nibble/sweep.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/exec_context.h"
#include "base/temporary_folder.h"
#include "eval/measures.h"
#include "nibble/quantize.h"
#include "pipeline/loading.h"
#include "pipeline/plot.h"
#include "pipeline/recipe.h"
#include "transform/transform.h"

namespace nibble {

namespace {

namespace fs = std::filesystem;
using eval::Measures;
using model::ModelSource;

constexpr std::size_t kSideBySide = 4;  // models that are run over a text at the same time

struct Row {
  std::string type, method, transform;
  std::string failure = {};  // why it could not be made
  fs::path output = {};
  std::uint64_t bytes = 0;
  double bits_per_weight = 0, seconds = 0;
  std::vector<Measures> measures = {};  // of each text
};

// Does a GGUF file hold the type, or does it need a folder?
bool fits_gguf(const std::string& type) {
  try {
    pipeline::load_recipe(type);
    return true;
  } catch (const Error&) {
    return false;
  }
}

// "a+b": one after the other.
std::vector<std::string> parts_of(const std::string& transforms) {
  std::vector<std::string> parts(1);
  for (const char c : transforms) {
    if (c == '+') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

std::string series_name(const Row& row) {
  return (row.method.empty() ? "default" : row.method) + (row.transform == "none" ? "" : " + " + row.transform);
}

class Sweep {
 public:
  Sweep(const RunContext& run, const SweepRequest& request) : run_(run), request_(request) {
    if (request.types.empty()) fail(ErrorCode::kInvalidArgument, "no types to sweep over");
    if (request.texts.empty()) fail(ErrorCode::kInvalidArgument, "no text to measure on");
    folder_ = request.folder;
    if (folder_.empty()) folder_ = temporary_.emplace().path();
    fs::create_directories(folder_);
  }

  Report run() {
    const std::vector<std::string> methods = request_.methods.empty() ? std::vector<std::string>{""} : request_.methods;
    for (const std::string& type : request_.types) {
      for (const std::string& method : methods) {
        for (const std::string& transform : request_.transforms)
          make({.type = type, .method = method, .transform = transform});
      }
    }
    if (std::ranges::all_of(rows_, [](const Row& row) { return !row.failure.empty(); }))
      fail(ErrorCode::kInvalidArgument, "nothing could be made: {}", rows_[0].failure);
    for (const fs::path& text : request_.texts) measure(text);
    if (!request_.svg.empty()) write_file_atomically(request_.svg, pipeline::to_svg(plot()));
    return {table(), json::dump(to_json())};
  }

 private:
  void make(Row row) {
    QuantizeRequest request;
    request.input = request_.model;
    request.type = row.type;
    request.method = row.method;
    request.effort = request_.effort;
    request.calib_tokens = request_.calib_tokens;
    if (row.transform != "none") request.transforms = parts_of(row.transform);
    std::string name = row.type + "-" + (row.method.empty() ? "default" : row.method);
    if (row.transform != "none") name += "-" + row.transform;
    row.output = folder_ / (name + (fits_gguf(row.type) ? ".gguf" : ""));
    request.output = row.output.string();
    try {
      const bool learns = std::ranges::any_of(request.transforms, [](const std::string& each) {
        return transform::choose(each).transform->apply != nullptr;
      });
      if (row.method != "rtn" || learns) request.calib = request_.calib;
      const QuantizeReport report = quantize_model(request, run_);
      row.bytes = report.file_bytes;
      row.bits_per_weight = report.bits_per_weight;
      row.seconds = report.seconds;
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kCancelled) throw;
      row.failure = error.what();
    }
    rows_.push_back(std::move(row));
  }

  // By the exact path, in f32; some models at a time beside the reference.
  void measure(const fs::path& text) {
    OwnedExecContext context(run_);
    const auto source = ModelSource::open(request_.model);
    const auto tokenizer = pipeline::load_tokenizer(*source);
    const calib::TokenChunks chunks =
        calib::chunk_file(*tokenizer, text, {calib::Protocol::kLlamaCpp, request_.context, request_.chunks});
    const eval::Contender reference = load(*context, request_.model);
    std::vector<Row*> made;
    for (Row& row : rows_) {
      if (row.failure.empty()) made.push_back(&row);
    }
    for (std::size_t begin = 0; begin < made.size(); begin += kSideBySide) {
      std::vector<eval::Contender> contenders;
      for (std::size_t i = begin; i < std::min(made.size(), begin + kSideBySide); ++i)
        contenders.push_back(load(*context, made[i]->output));
      const eval::ScoreTable scores = eval::score_chunks(*context, chunks, &reference, contenders);
      for (std::size_t i = 0; i < contenders.size(); ++i)
        made[begin + i]->measures.push_back(eval::measure(scores.contenders[i], &scores.reference));
    }
  }

  eval::Contender load(ExecContext& context, const fs::path& path) const {
    return {path.filename().string(), pipeline::load_model(context, ModelSource::open(path), model::MathPath::kExact),
            model::KvType::kF32};
  }

  pipeline::Plot plot() const {
    pipeline::Plot plot;
    plot.title = fs::weakly_canonical(request_.model).filename().string();
    plot.x_title = "bits per weight of the whole file";
    plot.y_title = format_text("mean KL divergence on {}, nats", request_.texts[0].filename().string());
    std::map<std::string, std::size_t> index;
    for (const Row& row : rows_) {
      if (row.measures.empty()) continue;
      const auto [at, added] = index.emplace(series_name(row), plot.series.size());
      if (added) plot.series.push_back({at->first, {}});
      plot.series[at->second].points.push_back({row.bits_per_weight, row.measures[0].distance->kld.mean, row.type});
    }
    return plot;
  }

  std::string table() const {
    std::string text = "| type | method | transform | bytes | bits/weight |";
    std::string rule = "|---|---|---|---|---|";
    for (const fs::path& file : request_.texts) {
      text += format_text(" KL {0} | top-1 % | perplexity |", file.stem().string());
      rule += "---|---|---|";
    }
    text += "\n" + rule + "\n";
    for (const Row& row : rows_) {
      text += format_text("| {} | {} | {} |", row.type, row.method.empty() ? "default" : row.method, row.transform);
      if (!row.failure.empty()) {
        text += " " + row.failure + " |\n";
        continue;
      }
      text += format_text(" {} | {:.3f} |", row.bytes, row.bits_per_weight);
      for (const Measures& measures : row.measures)
        text += format_text(" {:.6f} | {:.2f} | {:.3f} |", measures.distance->kld.mean,
                            100 * measures.distance->top1.mean, measures.perplexity);
      text += "\n";
    }
    return text;
  }

  json::Value to_json() const {
    json::Array rows;
    for (const Row& row : rows_) {
      json::Value object;
      object.set("type", row.type);
      object.set("method", row.method.empty() ? "default" : row.method);
      object.set("transform", row.transform);
      if (!row.failure.empty()) {
        object.set("failure", row.failure);
      } else {
        object.set("bytes", row.bytes);
        object.set("bits_per_weight", row.bits_per_weight);
        object.set("seconds", row.seconds);
        json::Array texts;
        for (std::size_t i = 0; i < row.measures.size(); ++i) {
          json::Value figures;
          figures.set("text", request_.texts[i].string());
          eval::add_to_json(row.measures[i], "_exact", figures);
          texts.push_back(std::move(figures));
        }
        object.set("texts", std::move(texts));
      }
      rows.push_back(std::move(object));
    }
    json::Value object;
    object.set("model", request_.model);
    object.set("rows", std::move(rows));
    return object;
  }

  const RunContext& run_;
  const SweepRequest& request_;
  std::optional<TemporaryFolder> temporary_;
  fs::path folder_;
  std::vector<Row> rows_;
};

}  // namespace

Report sweep(const RunContext& run, const SweepRequest& request) { return Sweep(run, request).run(); }

}  // namespace nibble
