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
  for (const char* text : {"", "{", "[1,]", "{\"a\" 1}", "nul", "\"\xFF\"", "1 2"})
    EXPECT_THROW(parse(text), Error) << text;
  EXPECT_THROW(parse(std::string(100000, '[')), Error);
}

TEST(JsonDocument, WalksWithoutATree) {
  const Document document(R"({"list":[1,"x",[2.5]],"o":{"k":null}})");
  const Document::Element root = document.root();
  std::string keys;
  std::vector<Document::Element> parts;
  root.for_each_member([&](std::string_view key, Document::Element part) {
    keys += key;
    parts.push_back(part);
  });
  EXPECT_EQ(keys, "listo");
  EXPECT_EQ(root.size(), 2u);
  std::vector<Document::Element> items;
  parts[0].for_each([&](Document::Element item) { items.push_back(item); });
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(items[0].as_int(), 1);
  EXPECT_EQ(items[0].as_number(), 1.0);
  EXPECT_EQ(items[1].as_string(), "x");
  EXPECT_EQ(items[2].value(), parse("[2.5]"));
  try {
    items[1].as_int();
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "JSON: expected an integer, found a string");
  }
  EXPECT_THROW(items[0].as_string(), Error);
  EXPECT_THROW(parts[1].for_each([](Document::Element) {}), Error);
  EXPECT_THROW(Document("[1,"), Error);
}

}  // namespace
}  // namespace nibble::json
