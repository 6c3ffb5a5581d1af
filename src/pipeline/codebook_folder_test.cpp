// A small model as codebooks, through quantize, convert and evaluation.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "base/exec_context.h"
#include "container/checkpoint.h"
#include "encoding/encoding.h"
#include "eval/tensor_error.h"
#include "nibble/quantize.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using nibble::testing::TemporaryFolder;
using ::testing::HasSubstr;

namespace fs = std::filesystem;

const fs::path kModel = fs::path(NIBBLE_SOURCE_DIR) / "models/books-7m";
constexpr const char* kTensor = "model.layers.3.mlp.down_proj.weight";

double worst_error(const fs::path& reference, const fs::path& candidate) {
  OwnedExecContext context(RunContext{});
  double worst = 0;
  for (const auto& error :
       eval::tensor_errors(*context, *model::ModelSource::open(reference), *model::ModelSource::open(candidate)))
    worst = std::max(worst, error.relative_mse);
  return worst;
}

QuantizeRequest request_for(const fs::path& input, const fs::path& output, const std::string& type) {
  QuantizeRequest request;
  request.input = input;
  request.output = output;
  request.type = type;
  return request;
}

std::string scheme_of(const fs::path& folder) {
  return container::open(folder)->config().at("quantization_config").at("quant_method").as_string();
}

TEST(CodebookFolders, AreWrittenReadAndConverted) {
  const TemporaryFolder folder;
  for (const auto& [type, scheme] : {std::pair<std::string, std::string>{"nf4-dq", "bitsandbytes"},
                                     {"fp4-b4096", "bitsandbytes"},
                                     {"kmeans4-tensor", "nibble"},
                                     {"kmeans3-g1000", "nibble"}}) {
    SCOPED_TRACE(type);
    const fs::path made = folder / type, plain = folder / (type + "-f32");
    quantize_model(request_for(kModel, made, type));
    EXPECT_EQ(scheme_of(made), scheme);
    EXPECT_EQ(container::open(made)->at(kTensor).view.encoding->name, type);
    const double error = worst_error(kModel, made);
    EXPECT_GT(error, 0.001);
    EXPECT_LT(error, type.starts_with("kmeans3") || type == "fp4-b4096" ? 0.06 : 0.04);
    ConvertRequest convert;
    convert.input = made;
    convert.output = plain;
    convert.type = "f32";
    convert_model(convert);
    EXPECT_EQ(worst_error(made, plain), 0);
  }
  // The same type again: codes and scales go over as they are.
  quantize_model(request_for(folder / "nf4-dq", folder / "again", "nf4-dq"));
  EXPECT_EQ(worst_error(folder / "nf4-dq", folder / "again"), 0);
}

TEST(CodebookFolders, RefuseOtherForms) {
  const TemporaryFolder folder;
  const auto fault = [&](QuantizeRequest request, const std::string& format) {
    request.format = format;
    try {
      quantize_model(request);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(fault(request_for(kModel, folder / "a", "nf4"), "gptq"), HasSubstr("bnb"));
  EXPECT_THAT(fault(request_for(kModel, folder / "a", "kmeans4-channel"), "bnb"), HasSubstr("nibble"));
  EXPECT_THAT(fault(request_for(kModel, folder / "a.gguf", "nf4"), ""), HasSubstr("nf4"));
  EXPECT_THAT(fault(request_for(kModel, folder / "a", "int4-g64"), "bnb"), HasSubstr("bnb"));
}

}  // namespace
}  // namespace nibble
