// One way from an input to an output: what is read, the plan for it, and how it is carried out.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/exec_context.h"
#include "calib/token_chunks.h"
#include "container/hf/format.h"
#include "nibble/quantize.h"
#include "pipeline/blockwise.h"
#include "pipeline/conversion.h"
#include "pipeline/plan.h"
#include "pipeline/transfer.h"

namespace nibble::pipeline {

struct Corridor {
  Conversion conversion;
  QuantPlan plan;
  TransferOptions options;
  std::optional<calib::TokenChunks> calibration;
  BlockwiseOptions blockwise;
  // Exchanges weights of the model for others before they are written, in the plan's types or in f32; none: as they
  // are.
  std::function<void(ExecContext&, const std::shared_ptr<model::ModelSource>&)> rewrite_weights;
  QuantizeReport report;

  // From the plan to the file under `output`.
  void write_gguf(ExecContext& context, const std::filesystem::path& output);
  // `format`: of the weights that are quantized; null: none is.
  void write_hf(ExecContext& context, const std::filesystem::path& output, std::uint64_t shard_size,
                const container::hf::Format* format = nullptr);
  // Of the file that write_gguf() makes.
  std::uint64_t gguf_bytes();

 private:
  void set_quantization_keys();
  std::vector<TensorOutcome> transfer_all(ExecContext& context, container::CheckpointWriter& writer);
};

// The words of a request. Throw Error{kInvalidArgument}.
method::Options method_options(const QuantizeRequest& request);
const method::Method* chosen_method(const QuantizeRequest& request);  // null: the default of each type
// Its transforms of the whole model, one after the other; null: none.
Rewrite chosen_rewrite(const QuantizeRequest& request);

// The output must not be one of the files that are read.
void check_output(const std::filesystem::path& output, const Conversion& conversion);
std::vector<PlanInput> plan_inputs(const Conversion& conversion);
// Notes weights that were quantized before and are again: their first error stays.
void note_requantized(const QuantPlan& plan, std::vector<std::string>& notes);
// A calibration text, or what was saved of one, gives the statistics that an importance matrix would, and finer ones;
// without either nothing is done.
void set_calibration(const QuantizeRequest& request, Corridor& corridor);
QuantizeReport report_plan(const Conversion& conversion, const QuantPlan& plan);

// All but the work, for a GGUF file.
Corridor prepare_gguf(const QuantizeRequest& request, const Recipe& recipe);

// quantize_model() of a type that is none of "auto", and convert_model(), with a corridor that is changed before it is
// gone through.
using Adjust = std::function<void(Corridor& corridor)>;
QuantizeReport quantize_adjusted(const QuantizeRequest& request, const RunContext& run, const Adjust& adjust = {});
QuantizeReport convert_adjusted(const ConvertRequest& request, const RunContext& run, const Adjust& adjust = {});

// Runs `write` unless only the plan was asked for, and fills in what all commands report.
template <typename Write>
QuantizeReport carry_out(Corridor& corridor, const std::string& output, bool dry_run, const RunContext& run,
                         Write&& write) {
  const auto start = std::chrono::steady_clock::now();
  QuantizeReport& report = corridor.report;
  report.output = output;
  report.dry_run = dry_run;
  if (!dry_run) {
    OwnedExecContext context(run);
    report.threads = context->pool.size();
    for (const std::string& note : report.notes) context->progress.note("note: " + note);
    write(*context);
    report.bits_per_weight = 8.0 * static_cast<double>(report.file_bytes) /
                             static_cast<double>(std::max<std::uint64_t>(1, report.parameters));
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return std::move(report);
}

}  // namespace nibble::pipeline
