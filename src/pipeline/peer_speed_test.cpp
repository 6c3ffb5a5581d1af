#include "pipeline/peer_speed.h"

#include <gmock/gmock.h>

#include "base/error.h"

namespace nibble::pipeline {
namespace {

using ::testing::HasSubstr;

TEST(PeerSpeedTest, ReadsEveryForm) {
  PeerSpeed speed = parse_peer_speed(R"([{"n_prompt": 512, "n_gen": 0, "avg_ts": 105.5},
      {"n_prompt": 0, "n_gen": 64, "avg_ts": 18.25}, {"n_prompt": 512, "n_gen": 64, "avg_ts": 1.0}])");
  EXPECT_EQ(speed.prefill_tok_s, 105.5);
  EXPECT_EQ(speed.decode_tok_s, 18.25);
  speed = parse_peer_speed(
      "| model   |  size | threads |  test |          t/s |\n"
      "| ------- | ----: | ------: | ----: | -----------: |\n"
      "| llama 1B| 1 GiB |       2 | pp512 | 99.50 ± 0.42 |\n"
      "| llama 1B| 1 GiB |       2 | tg64 @ d512 | 17.00 ± 0.10 |\n\nbuild: abc (1)\n");
  EXPECT_EQ(speed.prefill_tok_s, 99.5);
  EXPECT_EQ(speed.decode_tok_s, 17.0);
  speed = parse_peer_speed("{\"prefill_tok_s\": 3.5}\n");
  EXPECT_EQ(speed.prefill_tok_s, 3.5);
  EXPECT_FALSE(speed.decode_tok_s);
}

TEST(PeerSpeedTest, RefusesWhatHoldsNoSpeed) {
  for (const char* output :
       {"", "hello", "[]", "{}", "| a | b |\n", "[{\"n_prompt\": 5}]", "{\"prefill_tok_s\": \"x\"}"}) {
    EXPECT_THROW(parse_peer_speed(output), Error) << output;
  }
}

TEST(PeerSpeedTest, NamesTheCommandThatFails) {
  try {
    run_peer("exit 3");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("'exit 3': ended with status 3"));
  }
  EXPECT_EQ(run_peer("echo '{\"decode_tok_s\": 2}'").decode_tok_s, 2.0);
}

}  // namespace
}  // namespace nibble::pipeline
