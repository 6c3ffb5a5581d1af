// How a run went, a row a step, in a CSV file that grows while it goes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <vector>

namespace nibble::train {

struct LossRow {
  std::int64_t step = 0;    // from 1
  std::int64_t tokens = 0;  // seen so far
  double lr = 0;
  double loss = 0;  // mean over the learned tokens of the step
  double gradient_norm = 0;
  double tokens_per_s = 0;
  std::optional<double> held_out_loss = {};  // where it was measured
};

// Rows of a file `step,tokens,lr,loss,gradient_norm,tokens_per_s,held_out_loss`, numbers exact. A last line that was
// cut off in the middle is left out; throws Error{kFormat} naming file and line for anything else that is no row.
std::vector<LossRow> read_loss_curve(const std::filesystem::path& path);

class LossCurve {
 public:
  // Goes on behind step `taken` of the file: rows of later steps are taken out. 0 begins anew. Throws Error{kIo,
  // kFormat}.
  LossCurve(const std::filesystem::path& path, std::int64_t taken);
  // On disk as far as the system is concerned when it returns; throws Error{kIo}.
  void append(const LossRow& row);

 private:
  std::filesystem::path path_;
  std::ofstream file_;
};

// At most `most` rows for a plot: means over equally many steps, of the held-out loss over those that have one.
std::vector<LossRow> thin_rows(const std::vector<LossRow>& rows, std::size_t most);

}  // namespace nibble::train
