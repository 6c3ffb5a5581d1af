// Opening and loading models the way every measuring call needs them.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "base/exec_context.h"
#include "eval/score.h"
#include "model/model.h"
#include "token/tokenizer.h"

namespace nibble::pipeline {

std::shared_ptr<const model::Model> load_model(ExecContext& context,
                                               const std::shared_ptr<const model::ModelSource>& source,
                                               model::MathPath path, std::span<const std::string> adapters = {});
// Errors name the model.
std::unique_ptr<token::Tokenizer> load_tokenizer(const model::ModelSource& source);
double bits_per_weight(const model::ModelSource& source);  // of the whole file

}  // namespace nibble::pipeline
