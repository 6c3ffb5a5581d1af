// Importance matrices: for every linear weight, the sum over tokens of each input's square. Both file forms are read
// and written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::calib {

// What flowed into one weight. Several matrices (stacked experts) lie one after the other.
struct ImatrixEntry {
  std::vector<double> sums;          // (matrices, cols): sum over tokens of x²
  std::vector<std::int64_t> counts;  // tokens seen by each matrix; one count for all when the file says no more
};

struct Imatrix {
  std::map<std::string, ImatrixEntry, std::less<>> entries;  // by GGUF tensor name: "blk.0.attn_q.weight"
  std::int64_t chunk_count = 0;
  std::int64_t chunk_size = 0;        // tokens; 0: unknown, and the counts are chunks (read from the older form)
  std::vector<std::string> datasets;  // names of the texts

  const ImatrixEntry* find(std::string_view name) const;  // null when absent
};

// kGguf keeps raw sums and token counts and merges exactly; kDat keeps means only, without magic or version.
enum class ImatrixFormat : std::uint8_t { kGguf, kDat };

// Reads either form, told apart by content. Throws Error{kNotFound, kIo, kFormat} naming the file and the entry; sums
// that are negative or not finite are refused.
Imatrix load_imatrix(const std::filesystem::path& path);
// The file appears whole or not at all. Entries without any tokens are left out of the kDat form, as it cannot hold
// them.
void save_imatrix(const Imatrix& imatrix, const std::filesystem::path& path, ImatrixFormat format);
// The size of the file that save_imatrix() would make.
std::uint64_t imatrix_bytes(const Imatrix& imatrix, ImatrixFormat format);

// Adds the sums and counts of `other`; entries of unknown chunk size count as into.chunk_size tokens a chunk. Throws
// Error{kFormat} when two entries of one name differ in size.
void merge_imatrix(Imatrix& into, const Imatrix& other);

// The mean square of each input, (matrices, cols): what a weighted quantizer asks for. A matrix that saw no token gets
// ones.
std::vector<float> mean_square(const ImatrixEntry& entry);

}  // namespace nibble::calib
