// What a measuring call gives back: the same figures for a reader and for a program.
#pragma once

#include <string>

namespace nibble {

struct Report {
  std::string text;  // tables and sentences, ends with a newline
  std::string json;  // one object
};

}  // namespace nibble
