// Which inputs a calibration text reached, and where it was too short.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "calib/collect_statistics.h"
#include "json/json.h"

namespace nibble::pipeline {

inline constexpr std::int64_t kFewExpertTokens = 256;  // of an expert: fewer are told about

struct InputWarning {
  std::int64_t singular = 0;  // matrices that saw fewer tokens than they have columns: x xᵀ has no inverse
  std::int64_t starved = 0;   // of a stack: those that saw fewer than kFewExpertTokens
};
InputWarning warn(const calib::StatisticsInput& input, const calib::InputCoverage& coverage);

// A table with a line for each input.
std::string coverage_table(const calib::StatisticsHeader& header, std::span<const calib::InputCoverage> coverage);
json::Array coverage_json(const calib::StatisticsHeader& header, std::span<const calib::InputCoverage> coverage);
// What is wrong with it, in sentences; empty where nothing is.
std::vector<std::string> coverage_warnings(const calib::StatisticsHeader& header,
                                           std::span<const calib::InputCoverage> coverage);

}  // namespace nibble::pipeline
