#include "pipeline/loading.h"

#include "base/cpu.h"
#include "base/error.h"
#include "pipeline/adapters.h"

namespace nibble::pipeline {

std::shared_ptr<const model::Model> load_model(ExecContext& context,
                                               const std::shared_ptr<const model::ModelSource>& source,
                                               model::MathPath path, std::span<const std::string> adapters) {
  const std::vector<model::LoraAdapter> loaded = load_adapters(adapters, *source);
  return model::Model::load(context, source, {.path = path, .isa = best_isa(), .adapters = loaded});
}

std::unique_ptr<token::Tokenizer> load_tokenizer(const model::ModelSource& source) {
  return with_context(source.reader().path().string(), [&] { return token::make_tokenizer(source.vocabulary()); });
}

double bits_per_weight(const model::ModelSource& source) {
  return 8.0 * static_cast<double>(source.reader().file_bytes()) / static_cast<double>(source.spec().parameters());
}

}  // namespace nibble::pipeline
