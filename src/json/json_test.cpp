#include "json/json.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace nibble::json {
namespace {

TEST(Json, RoundTripKeepsOrderAndNumbers) {
  const char* text = R"({"b":1,"a":[1.5,"x\n\u00e9",null,true,-7],"o":{"z":1e-05,"y":{}}})";
  const Value value = parse(text);
  EXPECT_EQ(value.as_object()[0].first, "b");
  EXPECT_EQ(value.at("a").as_array()[1].as_string(), "x\n\xC3\xA9");
  EXPECT_EQ(parse(dump(value)), value);
  EXPECT_EQ(dump(value, 0), "{\"b\":1,\"a\":[1.5,\"x\\n\xC3\xA9\",null,true,-7],\"o\":{\"z\":1e-05,\"y\":{}}}");
}

TEST(Json, GettersSayWhatWasFound) {
  const Value value = parse(R"({"n": 3, "s": "x", "none": null})");
  EXPECT_EQ(value.get("n", 0), 3);
  EXPECT_EQ(value.get("none", 5), 5);
  EXPECT_EQ(value.get("absent", "d"), "d");
  try {
    value.get("s", 1);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "s: JSON: expected an integer, found a string");
  }
  EXPECT_THROW(value.at("absent"), Error);
}

TEST(Json, BadInputIsRefused) {
  for (const char* text : {"", "{", "[1,]", "{\"a\" 1}", "nul", "\"\xFF\"", "1 2"}) EXPECT_THROW(parse(text), Error) << text;
  EXPECT_THROW(parse(std::string(100000, '[')), Error);
}

}  // namespace
}  // namespace nibble::json
