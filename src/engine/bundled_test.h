// The bundled model and its tokenizer, loaded once for the tests of a suite.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>

#include "base/cpu.h"
#include "base/exec_context.h"
#include "model/model.h"
#include "token/tokenizer.h"

namespace nibble::engine {

template <model::MathPath kPath>
class BundledModel : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const auto source = model::ModelSource::open(std::filesystem::path(NIBBLE_SOURCE_DIR) / "models/books-7m");
    ThreadPool pool(1);
    CancelToken cancel;
    NullProgress progress;
    ExecContext context{pool, cancel, progress};
    model_ = model::Model::load(context, source, {kPath, best_isa()});
    tokenizer_ = token::make_tokenizer(source->vocabulary());
  }
  static void TearDownTestSuite() {
    model_.reset();
    tokenizer_.reset();
  }

  ThreadPool pool_{2};
  CancelToken cancel_;
  NullProgress progress_;
  ExecContext context_{pool_, cancel_, progress_};
  static inline std::shared_ptr<const model::Model> model_;
  static inline std::unique_ptr<token::Tokenizer> tokenizer_;
};

}  // namespace nibble::engine
