#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/near_names.h"

namespace nibble::train {

namespace {

struct NamedShape {
  std::string_view name;
  Schedule::Shape shape;
};

constexpr NamedShape kShapes[] = {
    {"constant", [](double) { return 1.0; }},
    {"linear", [](double progress) { return 1 - progress; }},
    {"cosine", [](double progress) { return 0.5 * (1 + std::cos(std::numbers::pi * progress)); }},
};

}  // namespace

double Schedule::factor(std::int64_t step) const {
  if (step < warmup_steps) return static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  const auto last = static_cast<double>(std::max<std::int64_t>(steps - 1 - warmup_steps, 1));
  const double progress = std::min(1.0, static_cast<double>(step - warmup_steps) / last);
  return final_fraction + (1 - final_fraction) * shape(progress);
}

std::vector<std::string_view> schedule_names() {
  std::vector<std::string_view> names;
  for (const NamedShape& named : kShapes) names.push_back(named.name);
  return names;
}

Schedule::Shape schedule_shape(std::string_view name) {
  for (const NamedShape& named : kShapes) {
    if (named.name == name) return named.shape;
  }
  fail(ErrorCode::kInvalidArgument, "no schedule is called '{}'; there are: {}", name,
       near_names(name, schedule_names()));
}

Schedule make_schedule(std::string_view name, std::int64_t steps, std::int64_t warmup_steps, double final_fraction) {
  const Schedule::Shape shape = schedule_shape(name);
  if (steps < 1) fail(ErrorCode::kInvalidArgument, "a schedule of {} steps", steps);
  if (warmup_steps < 0 || warmup_steps > steps) {
    fail(ErrorCode::kInvalidArgument, "{} steps of warm-up in a run of {}", warmup_steps, steps);
  }
  if (!(final_fraction >= 0 && final_fraction <= 1)) {
    fail(ErrorCode::kInvalidArgument, "the learning rate cannot end at {} of itself; 0 to 1 is possible",
         final_fraction);
  }
  return {shape, steps, warmup_steps, final_fraction};
}

}  // namespace nibble::train
