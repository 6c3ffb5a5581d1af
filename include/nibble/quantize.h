// From one model to another whose weights are packed differently: quantize (block types, methods, importance) and
// convert (plain types, and the way between GGUF files and Hugging Face folders).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nibble/run_context.h"

namespace nibble {

struct QuantizeRequest {
  std::string input;                    // Hugging Face folder or .gguf file
  std::string output;                   // .gguf file, or a folder to be made; appears whole or not at all
  std::string type;                     // built-in recipe ("q4_k_m"), encoding ("q4_k", "int4-g128"), or recipe file;
                                        // "auto": the best mix for a size
  std::uint64_t size_bytes = 0;         // of type auto: the file's, at most; 0: by bits_per_weight
  double bits_per_weight = 0;           // of type auto: 8 * file bytes / parameters, at most; 0: by size_bytes
  std::int64_t judge_tokens = 4096;     // of type auto: of `calib`, behind those that methods learn from, to judge by
  std::string emit_recipe;              // of type auto: file that takes the mix as a recipe; empty: none
  std::string format;                   // gguf, or of a folder: gptq, awq, ...; empty: what type and output allow
  std::string method;                   // "rtn", "search", ...; empty: the best for each type
  std::string imatrix;                  // importance matrix file; empty: none
  std::string calib;                    // text that methods learn from; empty: none
  std::string calib_stats;              // what calibrate() saved of one, instead; empty: none
  std::vector<std::string> adapters;    // LoRA, merged into the weights before all else: "PATH" or "PATH:SCALE"
  std::string kv_cache;                 // that the folder is made for: int8-static, fp8-static; empty: none is named
  std::vector<std::string> transforms;  // "rotate": of the whole model first; "awq": of each block, in this order
  std::string observer;                 // of fixed scales: minmax, percentile, mse, kl; empty: mse, of kv_cache minmax
  std::int64_t calib_tokens = 32768;    // of it, at most
  std::int64_t calib_context = 0;       // tokens of a sequence; 0: 512, or what the model was trained for if less
  std::vector<std::string> overrides;   // "REGEX=TYPE" over GGUF or Hugging Face names; the first that matches counts
  bool pure = false;                    // the type everywhere, the head included
  std::string rounding = "nearest";     // of method rtn: nearest, stochastic, floor, ceil
  std::string range;                    // of method rtn: minmax, mse, output; empty: output behind awq, else minmax
  std::uint64_t seed = 0;               // of stochastic rounding, of rotations
  int effort = -1;                      // passes of methods that improve on their first answer; -1: theirs
  // Of methods that look at the inputs of a layer together (gptq, adaround):
  double correction = 0.25;  // share of the way to the weights that suit the quantized layers before; 0: none
  double pull_back = 0;      // of gptq on integers, towards the weights as they were (FOEM)
  bool act_order = false;    // of gptq on integers: columns that carry most first
  double damping = 0.01;     // of the mean of the inputs' squares, added to each
  bool dry_run = false;      // plan only, write nothing
};

struct ConvertRequest {
  std::string input;                  // Hugging Face folder or .gguf file
  std::string output;                 // .gguf file, or a folder to be made (Hugging Face form)
  std::string type;                   // f32, f16 or bf16; empty: bf16 where the model's embedding is, else f16
  std::vector<std::string> adapters;  // LoRA, merged into the weights: "PATH" or "PATH:SCALE"
  std::uint64_t shard_bytes = 0;      // of a folder's weight files, at most; 0: 5e9
  bool dry_run = false;
};

// What became of one tensor. The errors compare what was written with what was read, over all weights.
struct TensorReport {
  std::string name;                 // in the output
  std::string hf_name;              // Hugging Face name; empty when the architecture is not known
  std::vector<std::int64_t> shape;  // outermost first
  std::string source_type, type;
  std::string method;  // "copy", "cast", or the name of the method
  std::string note;    // why the type is not the recipe's, what was missing
  std::uint64_t bytes = 0;
  double relative_mse = 0;  // sum (w - v)² / sum w²
  double snr_db = 0;        // -10 log10(relative_mse); 0 when exact
  double cosine = 1;
  double seconds = 0;
  double predicted_loss = 0;  // of type auto: KL divergence that this tensor adds
};

// Of type auto: a file that was made and measured.
struct ComparedFile {
  std::string recipe;
  std::uint64_t bytes = 0;
  double kld = 0;  // mean, nats, on tokens of the calibration text that nothing learned from; 0: not measured
};

// Where a method that learns from a text spent its time, in seconds.
struct PhaseSeconds {
  double forward = 0;     // running the blocks
  double statistics = 0;  // sums of products of what flows into linears
  double transforms = 0;
  double solving = 0;
  double tuning = 0;  // blocks by gradients
};

struct QuantizeReport {
  std::string input, output, recipe;
  std::string architecture;
  bool dry_run = false;
  int threads = 0;
  std::uint64_t parameters = 0;
  std::uint64_t input_bytes = 0;   // files
  std::uint64_t tensor_bytes = 0;  // data of the output
  std::uint64_t file_bytes = 0;    // of the output; 0 for a dry run
  double bits_per_weight = 0;      // 8 * file_bytes / parameters (of a dry run: tensor_bytes)
  double seconds = 0;
  PhaseSeconds phases;
  int fallbacks = 0;                   // tensors whose rows did not fit the recipe's type
  std::uint64_t size_limit = 0;        // of type auto
  double predicted_kld = 0;            // of type auto with a calibration text: the sum over tensors
  std::vector<ComparedFile> compared;  // of type auto: the output first, then what it was better than
  std::vector<std::string> notes;
  std::vector<TensorReport> tensors;
};

// Both throw Error; nothing is left under the output's name then.
QuantizeReport quantize_model(const QuantizeRequest& request, const RunContext& run = {});
QuantizeReport convert_model(const ConvertRequest& request, const RunContext& run = {});
std::string to_json(const QuantizeReport& report);
std::string to_text(const QuantizeReport& report);

// Names and one-line descriptions of the built-in recipes, of the methods, of the formats.
struct NamedText {
  std::string name, text;
};
std::vector<NamedText> list_recipes();
std::vector<NamedText> list_methods();
// All there is to know of a method: where it comes from, what it costs, what it learns from, what its results go into.
struct MethodText {
  std::string name, summary, source, statistics, cost;
  std::vector<std::string> formats;  // "gguf", and formats of folders
};
std::vector<MethodText> describe_methods();
// The formats of --format with the types that each holds.
std::vector<NamedText> list_formats();

}  // namespace nibble
