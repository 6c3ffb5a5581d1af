#include "base/error.h"
#include "container/gguf/reader.h"
#include "container/lora/halves.h"

namespace nibble::container::lora {

namespace {

constexpr HalfName kHalves[] = {{".lora_a", false}, {".lora_b", true}};
constexpr std::string_view kTable = "token_embd.weight";
constexpr std::string_view kAlpha = "adapter.lora.alpha";
constexpr std::string_view kInvocation = "adapter.alora.invocation_tokens";

Adapter read_open(const CheckpointReader& reader) {
  const Metadata& metadata = reader.metadata();
  const std::string type = metadata.get_string("general.type", "model");
  if (type != "adapter") fail(ErrorCode::kFormat, "general.type is '{}', not 'adapter'", type);
  const std::string kind = metadata.get_string("adapter.type");
  if (kind != "lora") fail(ErrorCode::kUnsupported, "an adapter of type '{}'; only 'lora' is read", kind);
  if (metadata.contains(kInvocation))
    fail(ErrorCode::kUnsupported, "'{}': adapters that some tokens switch on are not read", kInvocation);
  const double alpha = metadata.get_float(kAlpha, 0);
  Adapter adapter;
  adapter.dialect = Kind::kGguf;
  adapter.arch = metadata.get_string("general.architecture");
  adapter.name = metadata.get_string("general.name", reader.path().stem().string());
  for (const auto& [weight, halves] : find_halves(reader, kHalves)) {
    Pair pair;
    pair.weight = weight;
    pair.embedding = weight == kTable;
    const Shape &a = halves.a->view.shape, &b = halves.b->view.shape;
    std::vector<float> a_values = read_matrix(*halves.a), b_values = read_matrix(*halves.b);
    pair.rank = b[1];
    // Of a table: (vocabulary, rank) and (embedding, rank), W being the product of the first with the second
    // transposed.
    if ((pair.embedding ? a[1] : a[0]) != pair.rank) {
      fail(ErrorCode::kFormat, "tensor '{}' has shape {}, '{}' shape {}: their ranks differ", halves.a->name,
           a.to_string(), halves.b->name, b.to_string());
    }
    pair.a = pair.embedding ? transposed(b_values, b[0], b[1]) : std::move(a_values);
    pair.b = pair.embedding ? std::move(a_values) : std::move(b_values);
    pair.scale = alpha != 0 ? alpha / static_cast<double>(pair.rank) : 1;
    adapter.pairs.push_back(std::move(pair));
  }
  return adapter;
}

}  // namespace

Adapter read_gguf(const std::filesystem::path& file) {
  const auto reader = gguf::open(file);
  return with_context(file.string(), [&] { return read_open(*reader); });
}

void write_gguf(const Adapter& adapter, const std::filesystem::path& file) {
  if (adapter.pairs.empty()) fail(ErrorCode::kInvalidArgument, "an adapter without pairs");
  // In f32, as readers have it.
  const auto alpha = static_cast<float>(adapter.pairs[0].scale * static_cast<double>(adapter.pairs[0].rank));
  Metadata metadata;
  metadata.set("general.architecture", adapter.arch);
  metadata.set("general.type", std::string("adapter"));
  metadata.set("adapter.type", std::string("lora"));
  if (!adapter.name.empty()) metadata.set("general.name", adapter.name);
  metadata.set(kAlpha, alpha);
  std::vector<OutputTensor> tensors;
  for (const Pair& pair : adapter.pairs) {
    std::vector<float> a = pair.a, b = pair.b;
    const double said = alpha != 0 ? static_cast<double>(alpha) / static_cast<double>(pair.rank) : 1;
    const auto factor = static_cast<float>(pair.scale / said);
    for (float& value : b) value *= factor;
    OutputTensor first = {pair.weight + ".lora_a", pair.rank, pair.in(), std::move(a)};
    OutputTensor second = {pair.weight + ".lora_b", pair.out(), pair.rank, std::move(b)};
    if (pair.embedding) {
      OutputTensor table = {first.name, pair.out(), pair.rank, std::move(second.values)};
      second = {second.name, pair.in(), pair.rank, transposed(first.values, pair.rank, pair.in())};
      first = std::move(table);
    }
    tensors.push_back(std::move(first));
    tensors.push_back(std::move(second));
  }
  write_all(*create_gguf(file, metadata, planned(tensors)), tensors);
}

}  // namespace nibble::container::lora
