// How the learning rate goes over the steps of a run.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace nibble::train {

// From `warmup_steps` on a shape falls from 1 to `final_fraction` at the last step; before, the factor rises in equal
// parts, 1 / warmup_steps at step 0.
struct Schedule {
  using Shape = double (*)(double progress);  // of what is still to fall, 1 .. 0, at 0 <= progress <= 1
  Shape shape = nullptr;                      // of schedule_shape()
  std::int64_t steps = 1;                     // of the whole run
  std::int64_t warmup_steps = 0;
  double final_fraction = 0;  // EfficientQAT: 1/20

  // Of the learning rate at step 0 .. steps - 1; beyond, that of the last one.
  double factor(std::int64_t step) const;
};

std::vector<std::string_view> schedule_names();  // "constant", "linear", "cosine"
// The shape of that name; throws Error{kInvalidArgument}.
Schedule::Shape schedule_shape(std::string_view name);
// Throws Error{kInvalidArgument} for an unknown name, less than one step, a warm-up longer than the run, or a fraction
// outside 0 .. 1.
Schedule make_schedule(std::string_view name, std::int64_t steps, std::int64_t warmup_steps, double final_fraction);

}  // namespace nibble::train
