// What quantizing cost: perplexity, divergence from the unquantized model, answers to tasks, errors of weights and
// hidden states, energy.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "nibble/report.h"
#include "nibble/run_context.h"

namespace nibble {

struct EvaluateRequest {
  std::filesystem::path model;
  std::filesystem::path text;          // may be empty when only tasks, `tensors` or `energy` are asked for
  std::string protocol = "llama.cpp";  // "llama.cpp": second halves of chunks; "window": whole disjoint windows
  std::int64_t context = 0;            // tokens per chunk; 0: 512, or 2048 for windows
  std::int64_t chunks = 0;             // 0: all
  std::filesystem::path reference;     // the unquantized model; always computed by the exact path, in f32
  std::filesystem::path versus;  // a second candidate, compared by a paired bootstrap over chunks, for which it needs
                                 // `reference`, and over the items of tasks
  bool exact = false;            // the candidates by the exact path, too
  std::vector<std::string> adapters;  // LoRA of `model` alone, run beside its weights: "PATH" or "PATH:SCALE"
  std::string kv_cache;  // of the candidates; empty: the model's, or else f16 by the fast path, f32 by the exact one
  std::filesystem::path per_token;  // writes the figures of each scored token: .csv as text, else the divergences (or,
                                    // without a reference, the losses) as f32
  std::filesystem::path save_logits;  // writes the log-probabilities of all scored predictions, by the exact path if
                                      // that is run, as llama-perplexity's base file; protocol llama.cpp only
  std::vector<std::filesystem::path> tasks;  // multiple choice and last words, JSON lines (docs/evaluation.md)
  std::int64_t task_context = 0;             // most tokens of an item; 0: what the models were trained for
  bool tensors = false;                      // error of each weight; needs `reference`
  bool layers = false;              // error of the hidden states after each block; needs `reference` and `text`
  bool energy = false;              // energy model of one generated token
  std::int64_t energy_context = 0;  // context of the energy model; 0: what the model was trained for, at most 4096
  std::string rounding;             // an encoding of rounding rules to compare: "int4-g128"; needs `text`
  int draws = 10;                   // of stochastic rounding
  std::uint64_t seed = 1;           // of the bootstrap
};

// Throws Error for what cannot be opened or compared, and for a text shorter than one chunk.
Report evaluate(const RunContext& run, const EvaluateRequest& request);

}  // namespace nibble
