#include "pipeline/auto_types.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>

#include "base/atomic_file.h"
#include "base/checked.h"
#include "base/error.h"
#include "eval/measures.h"
#include "pipeline/allocate.h"
#include "pipeline/calibrated.h"
#include "pipeline/corridor.h"
#include "pipeline/importance.h"
#include "pipeline/loading.h"
#include "pipeline/sensitivity.h"
#include "pipeline/stock.h"

namespace nibble::pipeline {

namespace {

namespace fs = std::filesystem;

// What a tensor may become. Left out is what never lies on the hull of error over size (docs/bit-allocation.md).
constexpr std::string_view kTypes[] = {"q2_k", "q3_k", "iq4_xs", "iq4_nl", "q4_k",
                                       "q5_k", "q5_0", "q6_k",   "q8_0",   "f16"};
constexpr std::int64_t kSensitivityTokens = 2048;  // of those to judge by, for each measurement of one tensor
constexpr int kSensitivityEffort = 0;  // of the solver: what more passes gain is much the same for all types

Recipe recipe_of_type(std::string_view type) {
  json::Value value;
  value.set("base", std::string(type));
  value.set("stock", false);
  return parse_recipe("auto", value);
}

std::string escaped(std::string_view name) {
  std::string text;
  for (const char c : name) {
    if (c == '.') text += '\\';
    text += c;
  }
  return text;
}

// The text of a request in two parts: the first tokens, as for any type, to learn from, and those behind them to judge
// by, of a short text the last eighth.
struct SplitText {
  calib::TokenChunks learn, judge;
};

calib::TokenChunks part_of(const calib::TokenChunks& all, std::int64_t first, std::int64_t n) {
  calib::TokenChunks part = all;
  part.n_chunks = n;
  part.first_scored = 0;
  part.tokens.assign(all.tokens.begin() + first * all.context, all.tokens.begin() + (first + n) * all.context);
  return part;
}

SplitText split_text(const model::ModelSource& source, const QuantizeRequest& request) {
  const calib::TokenChunks all =
      calibration_chunks(source, {request.calib, request.calib_tokens + request.judge_tokens, request.calib_context});
  const std::int64_t wanted = std::max<std::int64_t>(1, request.calib_tokens / all.context);
  const std::int64_t judge = std::max(all.n_chunks - wanted, std::max<std::int64_t>(1, all.n_chunks / 8));
  if (judge >= all.n_chunks)
    fail(ErrorCode::kInvalidArgument, "'{}' has {} tokens: too few to learn from some and to judge by others",
         request.calib, all.n_chunks * all.context);
  return {part_of(all, 0, all.n_chunks - judge), part_of(all, all.n_chunks - judge, judge)};
}

// A file under a hidden name beside the output until it is the output.
class Contestant {
 public:
  Contestant(const fs::path& output, std::string_view name)
      : path_(output.parent_path() / format_text(".{}.{}", output.filename().string(), name)) {}
  ~Contestant() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  Contestant(const Contestant&) = delete;
  Contestant& operator=(const Contestant&) = delete;
  const fs::path& path() const { return path_; }
  void become(const fs::path& output) const {
    std::error_code error;
    fs::rename(path_, output, error);
    if (error) fail(ErrorCode::kIo, "cannot give '{}' its name: {}", output.string(), error.message());
  }

 private:
  fs::path path_;
};

class AutoTypes {
 public:
  AutoTypes(const QuantizeRequest& request, const RunContext& run)
      : request_(request), run_(run), corridor_(prepare_gguf(request, recipe_of_type("q8_0"))) {
    options_.method = chosen_method(request);
    for (const std::string& text : request.overrides) options_.overrides.push_back(parse_override(text));
    alignment_ = static_cast<std::uint64_t>(corridor_.conversion.metadata.get_int("general.alignment", 32));
    if (request.calib.empty()) return;
    text_ = split_text(*corridor_.conversion.model, request);
    request_.calib_tokens = text_->learn.n_chunks * text_->learn.context;
  }

  QuantizeReport run() {
    find_candidates();
    set_limit();
    if (!request_.dry_run) AtomicFile(request_.output);  // a folder that cannot be written to shows now
    estimate();
    const Recipe recipe = choose();
    if (!request_.emit_recipe.empty()) write_file_atomically(request_.emit_recipe, json::dump(recipe_json_) + "\n");
    if (request_.dry_run) return dry_run(recipe);
    return make(recipe);
  }

 private:
  QuantPlan plan_for(const Recipe& recipe) {
    QuantPlan plan = make_plan(recipe, corridor_.conversion.facts, plan_inputs(corridor_.conversion), options_);
    if (text_) settle_methods(corridor_.conversion, plan);
    return plan;
  }
  std::uint64_t bytes_of(const QuantPlan& plan) {
    corridor_.plan = plan;
    return corridor_.gguf_bytes();
  }

  // A tensor is open where types differ when the recipe does.
  void find_candidates() {
    std::vector<std::vector<TypeCandidate>> candidates(corridor_.plan.tensors.size());
    for (const std::string_view type : kTypes) {
      const encoding::EncodingInfo& encoding = encoding::get(type);
      if (options_.method != nullptr && encoding.family != encoding::Family::kPlain &&
          !options_.method->supports(encoding))
        continue;
      const QuantPlan plan = plan_for(recipe_of_type(type));
      for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
        const TensorPlan& tensor = plan.tensors[i];
        const auto known = [&](const TypeCandidate& c) { return c.type == tensor.target; };
        if (std::ranges::any_of(candidates[i], known)) continue;
        // Only in the place of q5_k, whose blocks do not divide all rows.
        if (type == "q5_0" && std::ranges::any_of(candidates[i], [](const auto& c) { return c.type->name == "q5_k"; }))
          continue;
        candidates[i].push_back({tensor.target, tensor.method, checked_align(tensor.bytes, alignment_)});
      }
    }
    QuantPlan plan = plan_for(recipe_of_type("q8_0"));
    std::vector<std::vector<float>> importance(candidates.size());
    if (!request_.imatrix.empty()) {
      std::vector<std::string> notes;
      importance = importance_of(calib::load_imatrix(request_.imatrix), plan, notes);
    }
    fixed_bytes_ = bytes_of(plan);
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      if (candidates[i].size() < 2) continue;
      std::ranges::stable_sort(candidates[i], {}, &TypeCandidate::bytes);
      fixed_bytes_ -= checked_align(plan.tensors[i].bytes, alignment_);
      open_.push_back({i, std::move(candidates[i]), std::move(importance[i]), false});
    }
  }

  void set_limit() {
    const auto parameters = static_cast<double>(corridor_.plan.parameters());
    limit_ = request_.size_bytes > 0 ? request_.size_bytes
                                     : static_cast<std::uint64_t>(request_.bits_per_weight * parameters / 8);
    std::uint64_t least = fixed_bytes_, most = fixed_bytes_;
    for (const OpenTensor& tensor : open_) {
      least += tensor.candidates.front().bytes;
      most += tensor.candidates.back().bytes;
    }
    if (limit_ >= least) return;
    const auto bits = [&](std::uint64_t bytes) { return 8 * static_cast<double>(bytes) / parameters; };
    fail(ErrorCode::kInvalidArgument,
         "{} bytes ({:.2f} bits per weight) are too few: files of this model take {} ({:.2f}) to {} ({:.2f})", limit_,
         bits(limit_), least, bits(least), most, bits(most));
  }

  void estimate() {
    OwnedExecContext context(run_);
    SensitivityOptions options;
    options.method = method_options(request_);
    options.method.effort = std::min(options.method.effort, kSensitivityEffort);
    if (text_) {
      const calib::TokenChunks& all = text_->judge;
      const std::int64_t n = std::clamp<std::int64_t>(kSensitivityTokens / all.context, 1, all.n_chunks);
      measure_losses(*context, corridor_.conversion, text_->learn, part_of(all, 0, n), options, open_);
    } else {
      estimate_losses(*context, corridor_.conversion, options, open_);
    }
  }

  Recipe choose() {
    std::vector<std::vector<TypeCost>> costs;
    for (const OpenTensor& tensor : open_) {
      std::vector<TypeCost>& each = costs.emplace_back();
      for (const TypeCandidate& candidate : tensor.candidates) each.push_back({candidate.bytes, candidate.loss});
    }
    const std::vector<std::size_t> chosen = allocate(costs, limit_ - fixed_bytes_);
    std::map<const encoding::EncodingInfo*, std::uint64_t> weights;
    for (std::size_t t = 0; t < open_.size(); ++t) {
      const TypeCandidate& candidate = open_[t].candidates[chosen[t]];
      predicted_ += candidate.loss;
      weights[candidate.type] += candidate.bytes;
    }
    const auto base = std::ranges::max_element(weights, {}, [](const auto& each) { return each.second; });
    json::Array rules;
    for (std::size_t t = 0; t < open_.size(); ++t) {
      const encoding::EncodingInfo* type = open_[t].candidates[chosen[t]].type;
      if (type == base->first) continue;
      json::Value rule;
      rule.set("match", "^" + escaped(corridor_.conversion.tensors[open_[t].index].tensor.name) + "$");
      rule.set("type", std::string(type->name));
      rules.push_back(std::move(rule));
    }
    recipe_json_.set("about", format_text("{} in {} bytes", fs::path(request_.input).filename().string(), limit_));
    recipe_json_.set("base", std::string(base == weights.end() ? "f16" : base->first->name));
    recipe_json_.set("stock", false);
    recipe_json_.set("rules", std::move(rules));
    return parse_recipe("auto", recipe_json_);
  }

  QuantizeReport dry_run(const Recipe& recipe) {
    corridor_.plan = plan_for(recipe);
    QuantizeReport report = report_plan(corridor_.conversion, corridor_.plan);
    report.output = request_.output;
    report.dry_run = true;
    add_prediction(report);
    return report;
  }

  void add_prediction(QuantizeReport& report) const {
    report.size_limit = limit_;
    if (text_) report.predicted_kld = predicted_;
    for (const OpenTensor& tensor : open_) {
      const auto& plan = report.tensors[tensor.index];
      for (const TypeCandidate& candidate : tensor.candidates) {
        if (candidate.type->name == plan.type) report.tensors[tensor.index].predicted_loss = candidate.loss;
      }
    }
  }

  // The largest stock mix that fits.
  std::optional<Recipe> stock_mix() {
    std::optional<Recipe> best;
    std::uint64_t best_bytes = 0;
    for (const std::string& name : recipe_names()) {
      Recipe recipe = load_recipe(name);
      if (recipe.needs_imatrix && request_.imatrix.empty() && request_.calib.empty()) continue;
      try {
        const std::uint64_t bytes = bytes_of(plan_for(recipe));
        if (bytes > limit_ || bytes <= best_bytes) continue;
        best_bytes = bytes;
        best = std::move(recipe);
      } catch (const Error&) {  // a type that the method cannot make
      }
    }
    return best;
  }

  QuantizeReport write(const Recipe& recipe, const fs::path& output) {
    QuantizeRequest request = request_;
    request.output = output.string();
    Corridor corridor = prepare_gguf(request, recipe);
    return carry_out(corridor, request.output, false, run_,
                     [&](ExecContext& context) { corridor.write_gguf(context, request.output); });
  }

  QuantizeReport make(const Recipe& recipe) {
    const fs::path output = request_.output;
    const Contestant mine(output, "auto"), other(output, "stock");
    std::optional<Recipe> stock;
    if (text_) stock = stock_mix();
    QuantizeReport report = write(recipe, mine.path());
    std::optional<QuantizeReport> rival;
    if (stock) rival = write(*stock, other.path());
    std::vector<ComparedFile> compared = {{report.recipe, report.file_bytes, 0}};
    if (rival) compared.push_back({rival->recipe, rival->file_bytes, 0});
    if (text_) measure(mine.path(), rival ? &other.path() : nullptr, compared);
    const bool better = !rival || compared[0].kld <= compared[1].kld;
    if (!better) {
      report = std::move(*rival);
      std::swap(compared[0], compared[1]);
    }
    (better ? mine : other).become(output);
    report.output = output.string();
    report.compared = std::move(compared);
    report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    add_prediction(report);
    return report;
  }

  void measure(const fs::path& mine, const fs::path* rival, std::vector<ComparedFile>& compared) {
    OwnedExecContext context(run_);
    const auto load = [&](const fs::path& path) {
      return eval::Contender{path.filename().string(),
                             load_model(*context, model::ModelSource::open(path), model::MathPath::kExact),
                             model::KvType::kF32};
    };
    const eval::Contender reference = load(request_.input);
    std::vector<eval::Contender> contenders = {load(mine)};
    if (rival != nullptr) contenders.push_back(load(*rival));
    const eval::ScoreTable scores = eval::score_chunks(*context, text_->judge, &reference, contenders);
    for (std::size_t i = 0; i < contenders.size(); ++i)
      compared[i].kld = eval::measure(scores.contenders[i], &scores.reference).distance->kld.mean;
  }

  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  QuantizeRequest request_;
  const RunContext& run_;
  PlanOptions options_;
  Corridor corridor_;
  std::optional<SplitText> text_;
  std::uint64_t alignment_ = 32, limit_ = 0, fixed_bytes_ = 0;
  std::vector<OpenTensor> open_;
  json::Value recipe_json_;
  double predicted_ = 0;
};

void check_request(const QuantizeRequest& request) {
  if ((request.size_bytes > 0) == (request.bits_per_weight > 0))
    fail(ErrorCode::kInvalidArgument, "type 'auto' needs the size to reach: --size 4.5GB or --bpw 4.5");
  const bool file = request.output.empty() || fs::path(request.output).extension() == ".gguf";
  if (!file || (!request.format.empty() && request.format != "gguf"))
    fail(ErrorCode::kInvalidArgument, "type 'auto' mixes the block types of GGUF: it is written to a .gguf file only");
  if (request.pure) fail(ErrorCode::kInvalidArgument, "type 'auto' is a mix, --pure the opposite");
}

}  // namespace

QuantizeReport quantize_auto(const QuantizeRequest& request, const RunContext& run) {
  check_request(request);
  return AutoTypes(request, run).run();
}

}  // namespace nibble::pipeline
