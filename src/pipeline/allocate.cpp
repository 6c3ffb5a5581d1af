#include "pipeline/allocate.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/error.h"

namespace nibble::pipeline {

namespace {

constexpr std::uint64_t kUnits = 65536;  // that the bytes to distribute are cut into, at most
constexpr std::uint8_t kNever = 255;

// Indices of candidates that no other beats in both, by rising bytes and falling loss.
std::vector<std::size_t> pareto(const std::vector<TypeCost>& candidates) {
  std::vector<std::size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) {
    return std::pair(candidates[a].bytes, candidates[a].loss) < std::pair(candidates[b].bytes, candidates[b].loss);
  });
  std::vector<std::size_t> kept;
  for (const std::size_t i : order) {
    if (kept.empty() || candidates[i].loss < candidates[kept.back()].loss) kept.push_back(i);
  }
  return kept;
}

class Allocator {
 public:
  Allocator(std::span<const std::vector<TypeCost>> tensors, std::uint64_t budget) : tensors_(tensors) {
    for (const auto& candidates : tensors) {
      fronts_.push_back(pareto(candidates));
      least_ += candidates[fronts_.back()[0]].bytes;
    }
    if (least_ > budget) fail(ErrorCode::kInvalidArgument, "the smallest types take {} bytes, of {}", least_, budget);
    left_ = budget - least_;
    chosen_.assign(tensors.size(), 0);
  }

  std::vector<std::size_t> run() {
    choose_unit();
    solve();
    fill();
    std::vector<std::size_t> result;
    for (std::size_t t = 0; t < chosen_.size(); ++t) result.push_back(fronts_[t][chosen_[t]]);
    return result;
  }

 private:
  const TypeCost& cost(std::size_t tensor, std::size_t place) const { return tensors_[tensor][fronts_[tensor][place]]; }
  // Above the smallest candidate.
  std::uint64_t extra(std::size_t tensor, std::size_t place) const {
    return cost(tensor, place).bytes - cost(tensor, 0).bytes;
  }

  void choose_unit() {
    std::uint64_t common = 0, most = 0;
    for (std::size_t t = 0; t < fronts_.size(); ++t) {
      for (std::size_t p = 1; p < fronts_[t].size(); ++p) common = std::gcd(common, extra(t, p));
      most += extra(t, fronts_[t].size() - 1);
    }
    units_ = std::min(left_, most);
    unit_ = std::max({common, (units_ + kUnits - 1) / kUnits, std::uint64_t{1}});
    units_ /= unit_;
  }

  // best[u]: the least loss of the tensors so far within u units; choice[t][u]: what tensor t takes there.
  void solve() {
    const auto n = static_cast<std::size_t>(units_) + 1;
    std::vector<double> best(n, 0), next(n);
    std::vector<std::vector<std::uint8_t>> choice(fronts_.size(), std::vector<std::uint8_t>(n, kNever));
    for (std::size_t t = 0; t < fronts_.size(); ++t) {
      std::ranges::fill(next, std::numeric_limits<double>::infinity());
      for (std::size_t p = 0; p < fronts_[t].size(); ++p) {
        const std::uint64_t step = (extra(t, p) + unit_ - 1) / unit_;
        for (std::size_t u = static_cast<std::size_t>(std::min<std::uint64_t>(step, n)); u < n; ++u) {
          const double loss = best[u - static_cast<std::size_t>(step)] + cost(t, p).loss;
          if (loss < next[u]) {
            next[u] = loss;
            choice[t][u] = static_cast<std::uint8_t>(p);
          }
        }
      }
      best.swap(next);
    }
    std::size_t u = n - 1;
    for (std::size_t t = fronts_.size(); t-- > 0;) {
      chosen_[t] = choice[t][u];
      u -= static_cast<std::size_t>((extra(t, chosen_[t]) + unit_ - 1) / unit_);
      left_ -= extra(t, chosen_[t]);
    }
  }

  // What rounding up left over goes where a byte saves most.
  void fill() {
    for (;;) {
      double most = 0;
      std::size_t tensor = 0, place = 0;
      for (std::size_t t = 0; t < fronts_.size(); ++t) {
        for (std::size_t p = chosen_[t] + 1; p < fronts_[t].size(); ++p) {
          const std::uint64_t bytes = extra(t, p) - extra(t, chosen_[t]);
          if (bytes > left_) break;
          const double saved = (cost(t, chosen_[t]).loss - cost(t, p).loss) / static_cast<double>(bytes);
          if (saved > most) {
            most = saved;
            tensor = t;
            place = p;
          }
        }
      }
      if (most <= 0) return;
      left_ -= extra(tensor, place) - extra(tensor, chosen_[tensor]);
      chosen_[tensor] = place;
    }
  }

  std::span<const std::vector<TypeCost>> tensors_;
  std::vector<std::vector<std::size_t>> fronts_;  // of each tensor
  std::vector<std::size_t> chosen_;               // places in the fronts
  std::uint64_t least_ = 0;                       // bytes of the smallest candidates
  std::uint64_t left_ = 0;                        // bytes that are not given to a tensor
  std::uint64_t unit_ = 1, units_ = 0;
};

}  // namespace

std::vector<std::size_t> allocate(std::span<const std::vector<TypeCost>> tensors, std::uint64_t budget_bytes) {
  return Allocator(tensors, budget_bytes).run();
}

}  // namespace nibble::pipeline
