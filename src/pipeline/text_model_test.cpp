// The text model of a larger one, whose other tensors are left out, is a model of its own then.
#include <gtest/gtest.h>

#include "model/source.h"
#include "nibble/quantize.h"
#include "testing/program.h"

namespace nibble {
namespace {

TEST(TextModels, BecomeFoldersOfTheirOwn) {
  for (const char* name : {"gemma3_larger", "ministral3_larger"}) {
    const testing::TemporaryFolder folder;
    ConvertRequest request;
    request.input = std::string(NIBBLE_SOURCE_DIR "/src/model/testdata/") + name;
    request.output = folder / "text";
    request.type = "f32";
    const QuantizeReport report = convert_model(request);
    ASSERT_FALSE(report.notes.empty());
    EXPECT_NE(report.notes[0].find("left out"), std::string::npos) << report.notes[0];
    const auto from = model::ModelSource::open(request.input), to = model::ModelSource::open(request.output);
    EXPECT_EQ(to->reader().config().find("text_config"), nullptr);
    EXPECT_EQ(to->reader().tensors().size(), to->spec().weights.size());
    EXPECT_EQ(to->spec().blocks, from->spec().blocks);
    EXPECT_EQ(to->spec().weights, from->spec().weights);
    EXPECT_EQ(to->spec().temperature_scale, from->spec().temperature_scale);
    EXPECT_EQ(to->spec().temperature_span, from->spec().temperature_span);
  }
}

}  // namespace
}  // namespace nibble
