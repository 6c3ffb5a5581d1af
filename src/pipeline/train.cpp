#include "nibble/train.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <optional>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/temporary_folder.h"
#include "nibble/synth.h"
#include "pipeline/calibrated.h"
#include "pipeline/corridor.h"
#include "pipeline/model_training.h"
#include "pipeline/plot.h"
#include "train/loss_curve.h"

namespace nibble {

namespace {

using namespace pipeline;
namespace fs = std::filesystem;

constexpr std::size_t kPlotRows = 200;

void check(const TrainRequest& request) {
  const int ways =
      (request.qat.empty() ? 0 : 1) + (request.efficientqat.empty() ? 0 : 1) + (request.lora.empty() ? 0 : 1);
  if (ways > 1) fail(ErrorCode::kInvalidArgument, "--qat, --efficientqat and --lora are three ways to train: give one");
  if (request.from_scratch && ways > 0)
    fail(ErrorCode::kInvalidArgument, "what begins from scratch is trained in full first, then with --qat or --lora");
  if (request.output.empty()) fail(ErrorCode::kInvalidArgument, "no output was named");
  if (request.sequences < 1 || request.accumulate < 1 || request.steps < 0)
    fail(ErrorCode::kInvalidArgument, "{} steps of {} batches of {} sequences", request.steps, request.accumulate,
         request.sequences);
  for (const auto& [name, number] : {std::pair{"--lr", request.lr}, {"--distill", request.distill}}) {
    if (!std::isfinite(number)) fail(ErrorCode::kInvalidArgument, "{} {}", name, number);
  }
}

// A model of the shape with a tokenizer, of numbers that are drawn anew by who trains it.
std::unique_ptr<TemporaryFolder> blank_model(const TrainRequest& request, const RunContext& run) {
  auto folder = std::make_unique<TemporaryFolder>();
  SynthRequest synth;
  synth.shape = request.input;
  synth.output = (folder->path() / "model").string();
  synth.dtype = "f32";
  if (fs::is_directory(request.input)) synth.shape = (fs::path(request.input) / "config.json").string();
  synthesize_model(synth, {run.threads, run.cancel, nullptr});
  const fs::path from = !request.tokenizer.empty()        ? fs::path(request.tokenizer)
                        : fs::is_directory(request.input) ? fs::path(request.input)
                                                          : fs::path(request.input).parent_path();
  if (!fs::is_directory(from)) return folder;
  static constexpr const char* kFiles[] = {
      "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
      "vocab.json",      "merges.txt",     "chat_template.jinja"};
  bool found = false;
  for (const char* name : kFiles) found = found || fs::exists(from / name);
  if (!found && !request.tokenizer.empty())
    fail(ErrorCode::kNotFound, "'{}' has no tokenizer's files", request.tokenizer);
  for (const char* name : kFiles) {
    if (!found) break;
    fs::remove(fs::path(synth.output) / name);
    if (fs::exists(from / name)) fs::copy_file(from / name, fs::path(synth.output) / name);
  }
  return folder;
}

std::vector<PlotPoint> points(const std::vector<train::LossRow>& rows, bool held_out) {
  std::vector<PlotPoint> out;
  for (const train::LossRow& row : rows) {
    if (held_out && !row.held_out_loss) continue;
    out.push_back({static_cast<double>(row.step), held_out ? *row.held_out_loss : row.loss});
  }
  return out;
}

void draw_curve(const fs::path& folder, const std::string& title, const fs::path& to) {
  const auto rows = train::thin_rows(train::read_loss_curve(train::curve_path(folder)), kPlotRows);
  PlotSeries training, judged;
  training.name = "training";
  training.points = points(rows, false);
  judged.name = "held out";
  judged.points = points(rows, true);
  judged.dashed = true;
  Plot plot;
  plot.title = title;
  plot.x_title = "step";
  plot.y_title = "loss, nats per token";
  plot.series = {training, judged};
  write_file_atomically(to, to_svg(plot));
}

void fill(TrainReport& report, const train::TrainedRun& run) {
  report.steps = run.steps;
  report.tokens = run.tokens;
  report.first_loss = run.first_loss;
  report.last_loss = run.last_loss;
  report.held_out_before = run.held_out_before;
  report.held_out_after = run.held_out_after;
  report.seconds = run.seconds;
  report.tokens_per_s = static_cast<double>(run.tokens) / std::max(1e-9, run.seconds);
  report.optimizer_bytes = run.optimizer_bytes;
}

// The files of a run that is over.
void finish(const fs::path& folder, TrainReport& report) {
  report.state = train::state_path(folder).string();
  report.curve = train::curve_path(folder).string();
  report.plot = (folder / "loss.svg").string();
  draw_curve(folder, fs::path(report.output).filename().string() + ": " + report.what, report.plot);
}

TrainReport train_adapter(const TrainRequest& request, const RunContext& run, TrainReport report) {
  const auto source = model::ModelSource::open(request.input);
  report.what = "adapter " + request.lora;
  if (request.dry_run) return report;
  OwnedExecContext context(run);
  const TrainingData data = read_training_data(*context, *source, request);
  for (const std::string& note : data.notes) context->progress.note("note: " + note);
  const fs::path folder = request.output + ".run";
  fill(report, train_lora(*context, source, {request, data, folder}, report));
  report.notes = data.notes;
  finish(folder, report);
  return report;
}

}  // namespace

TrainReport train_model(const TrainRequest& request, const RunContext& run) {
  check(request);
  TrainReport report;
  report.input = request.input;
  report.output = request.output;
  if (!request.lora.empty()) return train_adapter(request, run, report);
  const std::string type = !request.qat.empty() ? request.qat : request.efficientqat;
  report.what = !request.qat.empty()            ? type + ", quantization-aware"
                : !request.efficientqat.empty() ? type + ", blocks and then scales (EfficientQAT)"
                                                : "all weights";
  std::unique_ptr<TemporaryFolder> blank;
  std::string input = request.input;
  if (request.from_scratch) {
    blank = blank_model(request, run);
    input = (blank->path() / "model").string();
  }
  const fs::path folder = request.output + ".run";
  const auto adjust = [&](Corridor& corridor) {
    if (corridor.conversion.model == nullptr)
      fail(ErrorCode::kUnsupported, "an architecture that is not known cannot be trained");
    for (const SourceTensor& tensor : corridor.conversion.tensors) {
      if (!tensor.shares.empty())
        fail(ErrorCode::kUnsupported, "tensor '{}' holds several weights: write a GGUF file", tensor.tensor.name);
    }
    const std::vector<SlotTarget> targets = slot_targets(corridor.conversion, corridor.plan);
    corridor.rewrite_weights = [&, targets](ExecContext& context, const std::shared_ptr<model::ModelSource>& source) {
      const TrainingData data = read_training_data(context, *source, request);
      for (const std::string& note : data.notes) context.progress.note("note: " + note);
      const TrainingJob job = {request, data, folder};
      fill(report, type.empty() ? train_plainly(context, source, job, report)
                                : train_quantized(context, source, targets, job, report));
      report.notes.insert(report.notes.begin(), data.notes.begin(), data.notes.end());
    };
  };
  if (type.empty()) {
    ConvertRequest convert;
    convert.input = input;
    convert.output = request.output;
    convert.type = request.type;
    convert.dry_run = request.dry_run;
    report.written = convert_adjusted(convert, run, adjust);
  } else {
    QuantizeRequest quantize;
    quantize.input = input;
    quantize.output = request.output;
    quantize.type = type;
    quantize.format = request.format;
    quantize.dry_run = request.dry_run;
    QuantizeReport written = quantize_adjusted(quantize, run, adjust);
    written.phases = report.written.phases;  // of the blocks that were quantized first
    report.written = std::move(written);
  }
  if (request.dry_run) return report;
  finish(folder, report);
  return report;
}

std::string to_json(const TrainReport& report) {
  json::Value value;
  value.set("input", report.input);
  value.set("output", report.output);
  value.set("what", report.what);
  const std::pair<const char*, double> numbers[] = {{"steps", static_cast<double>(report.steps)},
                                                    {"tokens", static_cast<double>(report.tokens)},
                                                    {"parameters", static_cast<double>(report.parameters)},
                                                    {"lr", report.lr},
                                                    {"first_loss", report.first_loss},
                                                    {"last_loss", report.last_loss},
                                                    {"held_out_before", report.held_out_before},
                                                    {"held_out_after", report.held_out_after},
                                                    {"seconds", report.seconds},
                                                    {"tokens_per_s", report.tokens_per_s},
                                                    {"optimizer_bytes", static_cast<double>(report.optimizer_bytes)}};
  for (const auto& [name, number] : numbers) value.set(name, number);
  value.set("precision", report.precision);
  value.set("state", report.state);
  value.set("curve", report.curve);
  value.set("plot", report.plot);
  json::Array notes;
  for (const std::string& note : report.notes) notes.emplace_back(note);
  value.set("notes", std::move(notes));
  return json::dump(value);
}

std::string to_text(const TrainReport& report) {
  std::string text;
  for (const std::string& note : report.notes) text += note + "\n";
  text += format_text("{} -> {}: {}\n", report.input, report.output, report.what);
  text += format_text("{} steps, {} tokens in {} ({:.0f} tokens/s in {}), {} numbers trained, learning rate {}\n",
                      report.steps, report.tokens, format_duration(report.seconds), report.tokens_per_s,
                      report.precision, report.parameters, report.lr);
  text += format_text("loss {:.4f} -> {:.4f}", report.first_loss, report.last_loss);
  if (report.held_out_after > 0)
    text += format_text(", held out {:.4f} -> {:.4f}", report.held_out_before, report.held_out_after);
  text += format_text("\ncurve: {}, {}; state: {}\n", report.curve, report.plot, report.state);
  if (!report.written.output.empty())
    text += format_text("{}: {} bytes, {:.2f} bits per weight\n", report.written.output, report.written.file_bytes,
                        report.written.bits_per_weight);
  return text;
}

}  // namespace nibble
