#include "method/kmeans/solver.h"

#include <algorithm>
#include <limits>

#include "tensor/half.h"

namespace nibble::method::kmeans {

namespace {

// Sums over the first i points, of values less their mean: squares of what is far from zero lose digits.
class Sums {
 public:
  explicit Sums(std::span<const Point> points) : sums_(points.size() + 1) {
    double weight = 0, sum = 0;
    for (const Point& p : points) {
      weight += p.weight;
      sum += p.weight * static_cast<double>(p.value);
    }
    mean_ = weight > 0 ? sum / weight : 0.0;
    for (std::size_t i = 0; i < points.size(); ++i) {
      const double x = static_cast<double>(points[i].value) - mean_, w = points[i].weight;
      sums_[i + 1] = {sums_[i].w + w, sums_[i].wx + w * x, sums_[i].wxx + w * x * x};
    }
  }
  // Of points [begin, end) as one cluster, begin < end.
  double cost(std::size_t begin, std::size_t end) const {
    const double w = sums_[end].w - sums_[begin].w, wx = sums_[end].wx - sums_[begin].wx;
    return (sums_[end].wxx - sums_[begin].wxx) - wx * wx / w;
  }
  float mean(std::size_t begin, std::size_t end) const {
    return static_cast<float>(mean_ + (sums_[end].wx - sums_[begin].wx) / (sums_[end].w - sums_[begin].w));
  }

 private:
  struct Entry {
    double w = 0, wx = 0, wxx = 0;
  };
  std::vector<Entry> sums_;
  double mean_ = 0;
};

// cost[e]: of the first e points in the clusters so far; begin[e]: where the last of them begins.
struct Layer {
  std::vector<double> cost;
  std::vector<std::uint32_t> begin;
};

// Ends [first, last] of the next layer, whose last cluster begins within [low, high], and not before that of one
// cluster fewer.
void fill(const Sums& sums, const Layer& before, Layer& layer, std::size_t first, std::size_t last, std::size_t low,
          std::size_t high) {
  while (first <= last) {
    const std::size_t end = first + (last - first) / 2;
    double least = std::numeric_limits<double>::infinity();
    std::size_t best = std::min(std::max<std::size_t>(low, before.begin[end]), std::min(high, end - 1));
    for (std::size_t begin = best; begin <= std::min(high, end - 1); ++begin) {
      const double cost = before.cost[begin] + sums.cost(begin, end);
      if (cost < least) {
        least = cost;
        best = begin;
      }
    }
    layer.cost[end] = least;
    layer.begin[end] = static_cast<std::uint32_t>(best);
    if (end > first) fill(sums, before, layer, first, end - 1, low, best);
    first = end + 1;
    low = best;
  }
}

}  // namespace

std::vector<float> best_centroids(std::span<const Point> sorted, int k) {
  const std::size_t n = sorted.size(), clusters = std::min(n, static_cast<std::size_t>(k));
  if (clusters == 0) return {};
  const Sums sums(sorted);
  std::vector<Layer> layers(clusters, Layer{{}, std::vector<std::uint32_t>(n + 1)});
  layers[0].cost.resize(n + 1);
  for (std::size_t end = 1; end <= n; ++end) layers[0].cost[end] = sums.cost(0, end);
  for (std::size_t c = 1; c < clusters; ++c) {
    layers[c].cost.resize(n + 1);
    // Of the last layer only the end of all is asked for.
    fill(sums, layers[c - 1], layers[c], c + 1 < clusters ? c + 1 : n, n, c, n - 1);
    layers[c - 1].cost = {};
  }
  std::vector<float> centroids(clusters);
  for (std::size_t c = clusters, end = n; c-- > 0;) {
    const std::size_t begin = c == 0 ? 0 : layers[c].begin[end];
    centroids[c] = sums.mean(begin, end);
    end = begin;
  }
  return centroids;
}

void sort_points(std::vector<Point>& points) {
  // Equal values in the order they came: their weights are summed in it.
  std::ranges::stable_sort(points, {}, &Point::value);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (kept > 0 && points[kept - 1].value == points[i].value) {
      points[kept - 1].weight += points[i].weight;
    } else {
      points[kept++] = points[i];
    }
  }
  points.resize(kept);
}

namespace {

// The rounded mean of the points of each centroid; one without points stays. Gives the error of `book` itself.
double means_of(std::span<const Point> sorted, const Codebook& book, int n, Codebook& next) {
  double error = 0;
  std::size_t at = 0;
  next = book;
  for (int c = 0; c < n; ++c) {
    const auto index = static_cast<std::size_t>(c);
    const auto centre = static_cast<double>(book.centroids[index]);
    double weight = 0, sum = 0;
    for (; at < sorted.size() && nearest_centroid(book.centroids, n, sorted[at].value) == c; ++at) {
      const double difference = static_cast<double>(sorted[at].value) - centre;
      weight += sorted[at].weight;
      sum += sorted[at].weight * difference;
      error += sorted[at].weight * difference * difference;
    }
    if (weight > 0) next.centroids[index] = f16_to_f32(f32_to_f16(static_cast<float>(centre + sum / weight)));
  }
  return error;
}

}  // namespace

Codebook settle(std::span<const Point> sorted, std::span<const float> centroids, int bits) {
  constexpr int kRounds = 8;
  const int n = 1 << bits;
  Codebook book;
  for (std::size_t i = 0; i < static_cast<std::size_t>(n) && !centroids.empty(); ++i)
    book.centroids[i] = f16_to_f32(f32_to_f16(centroids[std::min(i, centroids.size() - 1)]));
  Codebook next;
  book.error = means_of(sorted, book, n, next);
  for (int round = 0; round < kRounds; ++round) {
    Codebook after;
    next.error = means_of(sorted, next, n, after);
    if (next.error >= book.error) break;
    book = next;
    next = after;
  }
  return book;
}

Codebook best_codebook(std::span<const Point> sorted, int bits) {
  return settle(sorted, best_centroids(sorted, 1 << bits), bits);
}

int nearest_centroid(const std::array<float, kMaxCentroids>& centroids, int n, float value) {
  int at = 0;
  for (int i = 0; i + 1 < n; ++i) {
    const auto index = static_cast<std::size_t>(i);
    at += value > (centroids[index] + centroids[index + 1]) * 0.5f;
  }
  return at;
}

}  // namespace nibble::method::kmeans
