#include "nibble/evaluate.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/atomic_file.h"
#include "base/cpu.h"
#include "base/error.h"
#include "calib/token_chunks.h"
#include "eval/energy.h"
#include "eval/layer_error.h"
#include "eval/logits_file.h"
#include "eval/measures.h"
#include "eval/rounding_table.h"
#include "eval/tensor_error.h"
#include "pipeline/adapters.h"
#include "pipeline/choices.h"
#include "pipeline/loading.h"
#include "pipeline/task_report.h"

namespace nibble {

namespace {

using eval::Contender;
using eval::Measures;
using model::MathPath;
using model::ModelSource;
using SourcePtr = std::shared_ptr<const ModelSource>;

constexpr int kResamples = 10000;
constexpr std::int64_t kEnergyContext = 4096;

// A model under test: what its file is, and one contender for each path it is run by.
struct Candidate {
  SourcePtr source;
  std::vector<std::size_t> runs;  // indices into the contenders, in the order of kPaths
  std::vector<std::string> adapters{};
};

struct Path {
  MathPath path;
  std::string_view suffix;  // of JSON keys
  std::string_view title;
};
constexpr Path kPaths[] = {{MathPath::kFast, "", "fast path"}, {MathPath::kExact, "_exact", "exact path"}};

class Evaluation {
 public:
  Evaluation(ExecContext& context, const EvaluateRequest& request) : context_(context), request_(request) {
    check_request();
  }

  Report run() {
    const auto start = std::chrono::steady_clock::now();
    open();
    if (!request_.text.empty() || !request_.tasks.empty()) load();
    if (!request_.text.empty()) score();
    report_model();
    if (table_) report_scores();
    if (table_ && candidates_.size() > 1) report_versus();
    if (!request_.tasks.empty()) run_tasks();
    if (request_.layers) report_layers();
    if (request_.tensors) report_tensors();
    if (request_.energy) report_energy();
    if (!request_.rounding.empty()) report_rounding();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    json_.set("seconds", seconds.count());
    return {std::move(text_), json::dump(json_)};
  }

 private:
  void check_request() const {
    const bool reference = !request_.reference.empty();
    const bool text = !request_.text.empty(), tasks = !request_.tasks.empty();
    if (!text && !tasks && !request_.tensors && !request_.energy) {
      fail(ErrorCode::kInvalidArgument, "nothing to evaluate: give a text or tasks, or ask for tensors or energy");
    }
    if (!reference && (request_.tensors || request_.layers || (text && !request_.versus.empty()))) {
      fail(ErrorCode::kInvalidArgument,
           "errors of tensors and layers and the comparison of two models need a reference");
    }
    if (!text && !tasks && !request_.versus.empty()) {
      fail(ErrorCode::kInvalidArgument, "the comparison of two models needs a text or tasks");
    }
    if (!text && (request_.layers || !request_.per_token.empty() || !request_.save_logits.empty() ||
                  !request_.rounding.empty())) {
      fail(ErrorCode::kInvalidArgument, "layers, rounding rules, figures per token and log-probabilities need a text");
    }
    if (!calib::parse_protocol(request_.protocol)) {
      fail(ErrorCode::kInvalidArgument, "unknown protocol '{}': llama.cpp or window", request_.protocol);
    }
    if (!request_.kv_cache.empty()) pipeline::parse_kv_type(request_.kv_cache);  // throws
  }

  void open() {
    candidates_.push_back({ModelSource::open(request_.model), {}, request_.adapters});
    if (!request_.versus.empty()) candidates_.push_back({ModelSource::open(request_.versus), {}});
    if (!request_.reference.empty()) reference_source_ = ModelSource::open(request_.reference);
  }

  // Figures per token of different tokenizers mean nothing side by side.
  void check_vocabulary(const token::Vocabulary& vocabulary, const ModelSource& other) const {
    const token::Vocabulary theirs = other.vocabulary();
    const auto differing =
        std::mismatch(vocabulary.tokens.begin(), vocabulary.tokens.end(), theirs.tokens.begin(), theirs.tokens.end());
    if (differing.first == vocabulary.tokens.end() && differing.second == theirs.tokens.end()) return;
    fail(ErrorCode::kInvalidArgument,
         "{} and {} have different vocabularies: {} and {} tokens, first difference at token {}",
         request_.model.string(), other.reader().path().string(), vocabulary.tokens.size(), theirs.tokens.size(),
         differing.first - vocabulary.tokens.begin());
  }

  // Texts and tasks are read before the models are loaded, so that what is wrong with them is known at once.
  void load() {
    const auto tokenizer = pipeline::load_tokenizer(*candidates_[0].source);
    if (reference_source_) check_vocabulary(tokenizer->vocabulary(), *reference_source_);
    if (candidates_.size() > 1) check_vocabulary(tokenizer->vocabulary(), *candidates_[1].source);
    if (!request_.text.empty()) {
      const calib::Protocol protocol = *calib::parse_protocol(request_.protocol);
      chunks_ = calib::chunk_file(*tokenizer, request_.text, {protocol, request_.context, request_.chunks});
      if (!request_.save_logits.empty()) {
        saved_.emplace(request_.save_logits, chunks_, candidates_[0].source->spec().vocab);
      }
    }
    if (!request_.tasks.empty()) {
      tasks_ = pipeline::open_tasks(request_.tasks);
      tasks_.requests = eval::encode_tasks(*tokenizer, tasks_.items, task_limit());
    }
    if (reference_source_) reference_ = contender(reference_source_, MathPath::kExact, model::KvType::kF32);
    for (Candidate& candidate : candidates_) {
      for (const Path& path : kPaths) {
        if (path.path == MathPath::kExact && !request_.exact) continue;
        candidate.runs.push_back(contenders_.size());
        contenders_.push_back(
            contender(candidate.source, path.path, kv_of(*candidate.source, path.path), candidate.adapters));
      }
    }
  }

  // Tokens that every model takes.
  std::int64_t task_limit() const {
    std::int64_t limit = candidates_[0].source->spec().context;
    for (const Candidate& candidate : candidates_) limit = std::min(limit, candidate.source->spec().context);
    if (reference_source_) limit = std::min(limit, reference_source_->spec().context);
    if (request_.task_context == 0) return limit;
    if (request_.task_context < 1 || request_.task_context > limit) {
      fail(ErrorCode::kInvalidArgument, "{} tokens for an item of a task; 1 to {} are possible", request_.task_context,
           limit);
    }
    return request_.task_context;
  }

  void score() {
    if (saved_) contenders_[candidates_[0].runs.back()].save = &*saved_;
    table_ = eval::score_chunks(context_, chunks_, reference_ ? &*reference_ : nullptr, contenders_);
    for (Contender& each : contenders_) each.save = nullptr;
    if (saved_) saved_->commit();
    if (!request_.per_token.empty()) write_per_token();
  }

  void run_tasks() {
    const auto scores_of = [&](const Contender& contender) {
      return eval::score_tasks(context_, tasks_.items, tasks_.requests, contender);
    };
    pipeline::TaskRuns runs;
    runs.reference_name = request_.reference.string();
    runs.versus_name = request_.versus.string();
    eval::ItemScores truth;
    if (reference_) {
      truth = scores_of(*reference_);
      runs.reference = &truth;
    }
    for (const Candidate& candidate : candidates_) {
      auto& side = &candidate == &candidates_[0] ? runs.model : runs.versus;
      for (std::size_t i = 0; i < candidate.runs.size(); ++i) {
        side.push_back(
            {std::string(kPaths[i].suffix), std::string(kPaths[i].title), scores_of(contenders_[candidate.runs[i]])});
      }
    }
    json_.set("tasks", pipeline::report_tasks(tasks_, runs, kResamples, request_.seed, text_));
  }

  Contender contender(const SourcePtr& source, MathPath path, model::KvType kv,
                      std::span<const std::string> adapters = {}) {
    return {source->reader().path().string(), pipeline::load_model(context_, source, path, adapters), kv};
  }

  // Of the candidates.
  model::KvType kv_of(const ModelSource& source, MathPath path) const {
    return pipeline::choose_kv_type(request_.kv_cache, source.spec(), path);
  }

  Measures measures_of(std::size_t contender) const {
    return eval::measure(table_->contenders[contender], reference_ ? &table_->reference : nullptr);
  }

  void report_model() {
    const ModelSource& source = *candidates_[0].source;
    json_.set("model", request_.model.string());
    json_.set("parameters", source.spec().parameters());
    json_.set("file_bytes", source.reader().file_bytes());
    json_.set("bits_per_weight", pipeline::bits_per_weight(source));
    text_ += format_text("{}: {} parameters, {}, {:.3f} bits per weight\n", request_.model.string(),
                         format_count(source.spec().parameters()), format_bytes(source.reader().file_bytes()),
                         pipeline::bits_per_weight(source));
    pipeline::report_adapters(request_.adapters, json_, text_);
    if (reference_source_) json_.set("reference", request_.reference.string());
    const auto name = [&](MathPath path) { return model::kv_type_name(kv_of(source, path)); };
    json_.set("kv_cache", name(MathPath::kFast));
    if (request_.exact) json_.set("kv_cache_exact", name(MathPath::kExact));
  }

  void report_scores() {
    json_.set("text", request_.text.string());
    json_.set("protocol", request_.protocol);
    json_.set("context", chunks_.context);
    json_.set("chunks", chunks_.n_chunks);
    json_.set("tokens_scored", chunks_.scored());
    text_ += format_text("{}: protocol {}, {} chunks of {} tokens, {} predictions scored\n", request_.text.string(),
                         request_.protocol, chunks_.n_chunks, chunks_.context, chunks_.scored());
    if (reference_) {
      const Measures truth = eval::measure(table_->reference, nullptr);
      json_.set("perplexity_reference", truth.perplexity);
      json_.set("perplexity_reference_error", truth.perplexity_error);
      text_ += format_text("reference   {}: perplexity {:.4f} +- {:.4f}\n", request_.reference.string(),
                           truth.perplexity, truth.perplexity_error);
    }
    for (std::size_t i = 0; i < candidates_[0].runs.size(); ++i) {
      const Measures measures = measures_of(candidates_[0].runs[i]);
      eval::add_to_json(measures, kPaths[i].suffix, json_);
      text_ += eval::to_text(kPaths[i].title, measures);
    }
  }

  void report_versus() {
    json::Value versus;
    const Candidate& other = candidates_[1];
    versus.set("model", request_.versus.string());
    versus.set("bits_per_weight", pipeline::bits_per_weight(*other.source));
    text_ += format_text("versus {}: {}, {:.3f} bits per weight\n", request_.versus.string(),
                         format_bytes(other.source->reader().file_bytes()), pipeline::bits_per_weight(*other.source));
    for (std::size_t i = 0; i < other.runs.size(); ++i) {
      const std::string suffix(kPaths[i].suffix);
      eval::add_to_json(measures_of(other.runs[i]), suffix, versus);
      text_ += eval::to_text(kPaths[i].title, measures_of(other.runs[i]));
      const auto sums = [&](const Candidate& candidate) {
        return eval::chunk_sums(table_->contenders[candidate.runs[i]].kld, chunks_.scored_per_chunk());
      };
      const eval::RatioInterval interval =
          eval::bootstrap_ratio(sums(candidates_[0]), sums(other), kResamples, request_.seed);
      versus.set("kld_ratio" + suffix, interval.ratio);
      versus.set("kld_ratio_low" + suffix, interval.low);
      versus.set("kld_ratio_high" + suffix, interval.high);
      text_ += format_text(
          "{:<11} mean KL divergence {:.4f} times that of the other model, 95 % interval {:.4f} to {:.4f}\n",
          kPaths[i].title, interval.ratio, interval.low, interval.high);
    }
    versus.set("resamples", kResamples);
    json_.set("versus", std::move(versus));
  }

  void report_layers() {
    for (std::size_t i = 0; i < candidates_[0].runs.size(); ++i) {
      const auto errors = eval::layer_errors(context_, chunks_, *reference_, contenders_[candidates_[0].runs[i]]);
      json_.set("layers" + std::string(kPaths[i].suffix), eval::to_json(errors));
      text_ += format_text("\nhidden states, {}\n", kPaths[i].title) + eval::to_table(errors);
    }
  }

  void report_tensors() {
    const auto errors = eval::tensor_errors(context_, *reference_source_, *candidates_[0].source);
    json_.set("tensors", eval::to_json(errors));
    text_ += "\n" + eval::to_table(errors);
  }

  void report_energy() {
    const ModelSource& source = *candidates_[0].source;
    const std::int64_t at =
        request_.energy_context > 0 ? request_.energy_context : std::min(source.spec().context, kEnergyContext);
    const eval::EnergyReport report = eval::energy_report(source, kv_of(source, MathPath::kFast), at);
    json_.set("energy", eval::to_json(report));
    text_ += "\n" + eval::to_table(report);
  }

  void report_rounding() {
    const eval::RoundingOptions options{&encoding::get(request_.rounding), request_.draws, best_isa()};
    const eval::RoundingTable table = eval::rounding_table(context_, candidates_[0].source, chunks_, options);
    json_.set("rounding", eval::to_json(table));
    text_ += "\n" + eval::to_table(table);
  }

  void write_per_token() const {
    const eval::TokenScores& scores = table_->contenders[0];
    std::string out;
    if (request_.per_token.extension() == ".csv") {
      out = reference_ ? "chunk,position,nll,kld,delta_p,same_top\n" : "chunk,position,nll\n";
      for (std::size_t i = 0; i < scores.nll.size(); ++i) {
        const auto per_chunk = static_cast<std::size_t>(chunks_.scored_per_chunk());
        const std::size_t position =
            i % per_chunk + static_cast<std::size_t>(chunks_.first_scored) + 1;  // of the predicted token
        out += format_text("{},{},{}", i / per_chunk, position, scores.nll[i]);
        if (reference_) out += format_text(",{},{},{}", scores.kld[i], scores.delta_p[i], scores.same_top[i]);
        out += "\n";
      }
    } else {
      for (const double value : reference_ ? scores.kld : scores.nll) {
        const auto narrow = static_cast<float>(value);
        out.append(reinterpret_cast<const char*>(&narrow), sizeof narrow);
      }
    }
    write_file_atomically(request_.per_token, out);
  }

  ExecContext& context_;
  const EvaluateRequest& request_;
  std::vector<Candidate> candidates_;  // the model, then the one it is compared with
  SourcePtr reference_source_;
  std::optional<Contender> reference_;
  std::vector<Contender> contenders_;
  calib::TokenChunks chunks_;
  pipeline::TaskSet tasks_;
  std::optional<eval::LogitsFile> saved_;
  std::optional<eval::ScoreTable> table_;
  json::Value json_;
  std::string text_;
};

}  // namespace

Report evaluate(const RunContext& run, const EvaluateRequest& request) {
  OwnedExecContext context(run);
  return Evaluation(*context, request).run();
}

}  // namespace nibble
