// Training: a model on, anew, into few bits, or an adapter beside it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nibble/quantize.h"
#include "nibble/run_context.h"

namespace nibble {

// A number below 0, or an empty text: the default of what is trained, which `describe` in the report names.
struct TrainRequest {
  std::string input;   // Hugging Face folder or .gguf file; from_scratch: a shape's name or a config.json
  std::string output;  // folder or .gguf file; of an adapter likewise
  bool from_scratch = false;
  std::string tokenizer;  // from scratch: the model whose tokenizer is taken; empty: from beside the config.json
  std::vector<std::string> texts;  // plain texts
  std::vector<std::string> data;   // JSON lines: text, prompt and completion, or messages
  double held_out = 0.02;          // share of the examples, the last ones, that judge and are not learned from

  std::string type;                    // of weights that are written and not quantized; empty: 16 bits, as the input
  std::string format;                  // of quantized folders, as QuantizeRequest has it
  std::string qat;                     // type that the whole model is trained in; empty: none
  std::string efficientqat;            // type: blocks first, then the scales of the whole model; empty: none
  std::string preset = "auto";         // of efficientqat: auto, or paper, the published numbers
  std::string lora;                    // "r=16,alpha=32,targets=all,dropout=0.05,rslora"; empty: no adapter
  double distill = -1;                 // share of the divergence from the model as it was in the loss
  std::int64_t block_tokens = 131072;  // that blocks are quantized and tuned with

  std::int64_t steps = 0;       // 0: once through the examples
  std::int64_t sequences = 8;   // of a batch
  std::int64_t accumulate = 1;  // batches of a step
  std::int64_t context = 0;     // tokens of a sequence; 0: 512, or what the model was trained for if less
  std::string optimizer = "adamw";
  double lr = -1;
  double weight_decay = 0;
  double beta2 = 0.999;
  std::string schedule = "cosine";
  std::int64_t warmup = -1;  // steps; -1: a twentieth
  double clip = 1;           // greatest norm of the gradient; 0: none
  std::uint64_t seed = 0;
  bool checkpoint = false;         // less memory: blocks are computed again on the way back
  std::string precision = "auto";  // of products: f32, bf16x3 (numbers as sums of two bf16), bf16
  std::string optimizer_memory;    // of its states in RAM, at most; beyond, in a file ("4GB"); empty: no limit

  std::int64_t evaluate_every = 0;  // steps; 0: ten times in all
  std::int64_t save_every = 100;    // steps between states from which a run goes on
  bool resume = false;
  bool dry_run = false;
};

struct TrainReport {
  std::string input, output, what;                     // "model", "int2-g64-asym, end to end", ...
  std::int64_t steps = 0, tokens = 0, parameters = 0;  // parameters: that are trained
  double lr = 0;
  std::string precision;                           // that products had
  double first_loss = 0, last_loss = 0;            // nats per prediction, of a step
  double held_out_before = 0, held_out_after = 0;  // what is minimized, over the examples held out
  double seconds = 0, tokens_per_s = 0;
  std::uint64_t optimizer_bytes = 0;
  std::string state, curve, plot;  // files
  std::vector<std::string> notes;
  QuantizeReport written;  // empty of an adapter
};

// Throws Error; what was under the output's name stays then. A run that is stopped (RunContext::cancel) or fails leaves
// OUTPUT.run with its state, from which `resume` goes on as if it had not been interrupted.
TrainReport train_model(const TrainRequest& request, const RunContext& run = {});
std::string to_json(const TrainReport& report);
std::string to_text(const TrainReport& report);

}  // namespace nibble
