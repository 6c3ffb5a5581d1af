#include "container/metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace nibble::container {
namespace {

using testing::ElementsAre;

TEST(Metadata, KeepsOrderAndReplacesInPlace) {
  Metadata m;
  m.set("b", std::uint32_t{1});
  m.set("a", std::string("x"));
  m.set("b", 2.5f);
  ASSERT_EQ(m.entries().size(), 2u);
  EXPECT_EQ(m.entries()[0].first, "b");
  EXPECT_EQ(m.get_float("b"), 2.5);
  m.erase("b");
  EXPECT_FALSE(m.contains("b"));
  EXPECT_TRUE(m.contains("a"));
}

TEST(Metadata, AnyExactNumberIsTaken) {
  Metadata m;
  m.set("u8", std::uint8_t{200});
  m.set("u64", std::uint64_t{1} << 63);
  m.set("i64", std::int64_t{-5});
  m.set("f32", 3.0f);
  m.set("half", 0.5);
  m.set("big", (std::int64_t{1} << 53) + 1);
  m.set("bool", true);
  EXPECT_EQ(m.get_int("u8"), 200);
  EXPECT_EQ(m.get_int("i64"), -5);
  EXPECT_EQ(m.get_int("f32"), 3);
  EXPECT_EQ(m.get_float("u8"), 200.0);
  EXPECT_THROW(m.get_int("u64"), Error);
  EXPECT_EQ(m.get_int("absent", 7), 7);
  EXPECT_THROW(m.get_int("half"), Error);
  EXPECT_THROW(m.get_float("big"), Error);
  EXPECT_THROW(m.get_int("bool"), Error);
  EXPECT_THROW(m.get_bool("u8", false), Error);
  EXPECT_TRUE(m.get_bool("bool", false));
  EXPECT_THROW(m.get_string("bool"), Error);
  try {
    m.get_int("absent");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_STREQ(error.what(), "the metadata lacks the key 'absent'");
  }
}

TEST(Metadata, Arrays) {
  Metadata m;
  m.set("ints", MetaArray{std::vector<std::uint16_t>{1, 65535}});
  m.set("floats", MetaArray{std::vector<float>{1.0f, 0.5f}});
  m.set("strings", MetaArray{std::vector<std::string>{"a", ""}});
  m.set("one", std::int32_t{-4});
  EXPECT_THAT(m.get_ints("ints"), ElementsAre(1, 65535));
  EXPECT_THAT(m.get_ints("one"), ElementsAre(-4));
  EXPECT_THAT(m.get_floats("floats"), ElementsAre(1.0f, 0.5f));
  EXPECT_THAT(m.get_strings("strings"), ElementsAre("a", ""));
  EXPECT_THROW(m.get_ints("floats"), Error);
  EXPECT_THROW(m.get_ints("strings"), Error);
  EXPECT_THROW(m.get_strings("ints"), Error);
  EXPECT_THROW(m.get_strings("one"), Error);
  EXPECT_THROW(m.get_int("ints"), Error);
}

}  // namespace
}  // namespace nibble::container
