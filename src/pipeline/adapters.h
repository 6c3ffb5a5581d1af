// LoRA adapters as requests name them.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "json/json.h"
#include "model/lora.h"
#include "model/source.h"
#include "pipeline/conversion.h"

namespace nibble::pipeline {

// Each "PATH" or "PATH:SCALE": a number behind the last colon multiplies the adapter's own scale, unless the whole is
// the name of a file. Throws as model::load_lora().
std::vector<model::LoraAdapter> load_adapters(std::span<const std::string> texts, const model::ModelSource& base);

// Names them in a report, if there are any.
void report_adapters(std::span<const std::string> texts, json::Value& object, std::string& text);

// A rewriting that merges them into the weights; empty: none is named.
Rewrite merging(const std::vector<std::string>& texts);

}  // namespace nibble::pipeline
