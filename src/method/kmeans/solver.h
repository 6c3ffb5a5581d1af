// Weighted k-means of numbers: in one dimension the best centroids can be found exactly.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace nibble::method::kmeans {

// Numbers and how much each counts.
struct Point {
  float value = 0;
  double weight = 1;
};

constexpr int kMaxCentroids = 16;

// The centroids with the least sum of weight * (value - nearest centroid)^2, ascending: every cluster of an optimum is
// a run of the sorted values, so a dynamic program over the ends of the runs finds it (Wang and Song, Ckmeans.1d.dp, R
// Journal 3/2 2011; by divide and conquer, as the best begin of a run moves only up with its end: O(k n log n)).
// `sorted`: ascending, no value twice, weights above 0. At most `k` centroids, fewer where there are fewer values.
// Deterministic.
std::vector<float> best_centroids(std::span<const Point> sorted, int k);

// Sorts, and joins equal values.
void sort_points(std::vector<Point>& points);

// Centroids as they are stored, in f16, and what they cost. Those that hold no value repeat the last one.
struct Codebook {
  std::array<float, kMaxCentroids> centroids{};  // the first 2^bits, ascending
  double error = 0;                              // of the points it was made for
};
// Starts at `centroids`, rounded to f16, and moves them to the rounded means of their points as long as that lowers the
// error: never worse than the start.
Codebook settle(std::span<const Point> sorted, std::span<const float> centroids, int bits);
Codebook best_codebook(std::span<const Point> sorted, int bits);

// The index of the nearest centroid, the lower one at equal distance. Ascending.
int nearest_centroid(const std::array<float, kMaxCentroids>& centroids, int n, float value);

}  // namespace nibble::method::kmeans
