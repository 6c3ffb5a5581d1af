// The corridor from end to end, on small models.
#include "nibble/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/exec_context.h"
#include "calib/imatrix.h"
#include "container/checkpoint.h"
#include "encoding/encoding.h"
#include "eval/tensor_error.h"
#include "model/arch.h"
#include "model/source.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using testing::TemporaryFolder;

const std::string kModel = std::string(NIBBLE_SOURCE_DIR) + "/models/books-7m";

QuantizeRequest request(const std::string& input, const std::string& output, const std::string& type) {
  QuantizeRequest r;
  r.input = input;
  r.output = output;
  r.type = type;
  return r;
}

ConvertRequest conversion(const std::string& input, const std::string& output, const std::string& type) {
  ConvertRequest r;
  r.input = input;
  r.output = output;
  r.type = type;
  return r;
}

// A tiny model as a Hugging Face folder.
std::string tiny(const TemporaryFolder& folder, const std::string& model_type = "llama",
                 const std::string& encoding = "f32") {
  testing::TinyModelOptions options;
  options.encoding = encoding;
  testing::write_tiny_model(folder / "model", testing::tiny_config(model_type), options);
  return folder / "model";
}

// Replaces one number of a safetensors file of f32 weights; returns the tensor's name.
std::string poison(const std::string& model, const std::string& tensor, std::int64_t row, std::int64_t column,
                   float value) {
  const std::string path = model + "/model.safetensors";
  std::uint64_t at = 0;
  {
    const auto reader = container::open(model);
    const container::TensorEntry& entry = reader->at(tensor);
    at = entry.offset + static_cast<std::uint64_t>(row * entry.view.cols() + column) * sizeof(float);
  }
  std::string bytes = read_file(path);
  std::memcpy(bytes.data() + at, &value, sizeof value);
  write_file_atomically(path, bytes);
  return tensor;
}

std::string message_of(const QuantizeRequest& r) {
  try {
    quantize_model(r);
  } catch (const Error& error) {
    return error.what();
  }
  return "(no error)";
}

std::size_t files_in(const TemporaryFolder& folder) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(folder.path()), std::filesystem::directory_iterator()));
}

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(Quantize, SameBytesForAnyNumberOfThreads) {
  const TemporaryFolder folder;
  for (const char* method : {"search", "rtn"}) {
    std::string bytes;
    for (const int threads : {1, 2, 5}) {
      QuantizeRequest r = request(kModel, folder / "out.gguf", "q4_k_m");
      r.method = method;
      if (r.method == "rtn") r.rounding = "stochastic";
      RunContext run;
      run.threads = threads;
      quantize_model(r, run);
      const std::string now = read_file(r.output);
      if (bytes.empty()) bytes = now;
      EXPECT_TRUE(bytes == now) << method << " with " << threads << " threads";
    }
  }
}

TEST(Quantize, ReportedErrorsAreThoseOfTheFile) {
  const TemporaryFolder folder;
  const QuantizeReport report = quantize_model(request(kModel, folder / "out.gguf", "q4_k_m"));
  EXPECT_EQ(report.file_bytes, std::filesystem::file_size(folder / "out.gguf"));
  EXPECT_NEAR(report.bits_per_weight, 8.0 * static_cast<double>(report.file_bytes) / 7344384.0, 1e-9);
  EXPECT_EQ(report.fallbacks, 0);
  OwnedExecContext context(RunContext{});
  const auto errors =
      eval::tensor_errors(*context, *model::ModelSource::open(kModel), *model::ModelSource::open(folder / "out.gguf"));
  ASSERT_EQ(errors.size(), report.tensors.size());
  for (const TensorReport& tensor : report.tensors) {
    const auto same =
        std::find_if(errors.begin(), errors.end(), [&](const auto& e) { return e.name == tensor.hf_name; });
    ASSERT_NE(same, errors.end()) << tensor.hf_name;
    EXPECT_EQ(tensor.type, same->encoding);
    EXPECT_EQ(tensor.bytes, same->n_bytes);
    EXPECT_NEAR(tensor.relative_mse, same->relative_mse, 1e-5 * same->relative_mse) << tensor.name;
    EXPECT_NEAR(tensor.cosine, same->cosine, 1e-6) << tensor.name;
  }
}

TEST(Quantize, EveryArchitectureThereAndBack) {
  std::vector<std::string> types;
  for (const model::Arch* arch : model::all_entries()) {
    types.insert(types.end(), arch->hf_model_types.begin(), arch->hf_model_types.end());
  }
  for (const std::string& type : types) {
    const TemporaryFolder folder;
    const std::string hf = tiny(folder, type);
    convert_model(conversion(hf, folder / "a.gguf", "f32"));
    const auto from = model::ModelSource::open(hf);
    const auto to = model::ModelSource::open(folder / "a.gguf");
    OwnedExecContext context(RunContext{});
    for (const eval::TensorError& error : eval::tensor_errors(*context, *from, *to)) {
      // Where GGUF adds 1 to the norms, as much is lost as f32 loses.
      EXPECT_LE(error.max_abs, error.name.find("norm") != error.name.npos ? 1e-7 : 0) << type << " " << error.name;
    }
    const auto tokens = from->vocabulary().tokens;
    const auto written = to->vocabulary().tokens;  // one for each row of the embedding
    ASSERT_LE(tokens.size(), written.size());
    EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), written.begin())) << type;
    convert_model(conversion(folder / "a.gguf", folder / "b.gguf", "f32"));
    EXPECT_TRUE(read_file(folder / "a.gguf") == read_file(folder / "b.gguf"))
        << type << ": a copy must be the same file";
    quantize_model(request(folder / "a.gguf", folder / "q1.gguf", "q4_0"));
    quantize_model(request(hf, folder / "q2.gguf", "q4_0"));
    EXPECT_TRUE(read_file(folder / "q1.gguf") == read_file(folder / "q2.gguf"))
        << type << ": the container must not matter";
  }
}

TEST(Quantize, OverridesPureAndFallbacks) {
  const TemporaryFolder folder;
  QuantizeRequest r = request(kModel, "", "q4_k_m");
  r.dry_run = true;
  r.overrides = {"blk\\.\\d\\.attn_q=q8_0", "mlp\\.up_proj=f16", "blk\\.=q6_k"};
  QuantizeReport report = quantize_model(r);
  EXPECT_TRUE(report.dry_run);
  for (const TensorReport& tensor : report.tensors) {
    if (tensor.shape.size() < 2) continue;
    const bool query = tensor.name.find("attn_q") != std::string::npos;
    const bool up = tensor.name.find("ffn_up") != std::string::npos;
    EXPECT_EQ(tensor.type, query ? "q8_0" : up ? "f16" : "q6_k") << tensor.name;
  }
  r.overrides = {"no_such_tensor=q8_0"};
  EXPECT_SAYS(message_of(r), "override 'no_such_tensor' matches no tensor");
  r.overrides = {"attn_q"};
  EXPECT_SAYS(message_of(r), "REGEX=TYPE");
  r.overrides.clear();
  r.pure = true;
  report = quantize_model(r);
  for (const TensorReport& tensor : report.tensors) EXPECT_EQ(tensor.type, tensor.shape.size() < 2 ? "f32" : "q4_k");
  EXPECT_NEAR(report.bits_per_weight, 4.5, 0.05);

  QuantizeRequest odd = request(tiny(folder), "", "q4_k_m");  // rows of 32 k that no multiple of 256
  odd.dry_run = true;
  report = quantize_model(odd);
  EXPECT_GT(report.fallbacks, 0);
  EXPECT_SAYS(to_text(report), "q4_k does not fit rows of");
}

TEST(Quantize, ImportanceChangesTheRoundingAndIsNamedInTheFile) {
  const TemporaryFolder folder;
  quantize_model(request(kModel, folder / "plain.gguf", "q4_k_m"));
  calib::Imatrix imatrix;
  imatrix.chunk_count = 3;
  imatrix.chunk_size = 512;
  imatrix.datasets = {"text.txt"};
  calib::ImatrixEntry entry;
  entry.counts = {1536};
  for (int i = 0; i < 256; ++i) entry.sums.push_back(1 + i % 7 * 100);
  imatrix.entries["blk.0.attn_q.weight"] = entry;
  imatrix.entries["output.weight"] = entry;  // of the tied head
  calib::save_imatrix(imatrix, folder / "imatrix.gguf", calib::ImatrixFormat::kGguf);
  QuantizeRequest r = request(kModel, folder / "weighted.gguf", "q4_k_m");
  r.imatrix = folder / "imatrix.gguf";
  const QuantizeReport report = quantize_model(r);
  ASSERT_EQ(report.notes.size(), 1u);
  EXPECT_SAYS(report.notes[0], "55 of 57 quantized tensors have no entry in the importance matrix");
  const auto plain = container::open(folder / "plain.gguf");
  const auto weighted = container::open(folder / "weighted.gguf");
  EXPECT_EQ(weighted->metadata().get_string("quantize.imatrix.file"), r.imatrix);
  EXPECT_EQ(weighted->metadata().get_string("quantize.imatrix.dataset"), "text.txt");
  EXPECT_EQ(weighted->metadata().get_int("quantize.imatrix.entries_count"), 2);
  EXPECT_EQ(weighted->metadata().get_int("quantize.imatrix.chunks_count"), 3);
  for (const container::TensorEntry& tensor : plain->tensors()) {
    const auto a = tensor.view.data();
    const auto b = weighted->at(tensor.name).view.data();
    const bool same = std::equal(a.begin(), a.end(), b.begin(), b.end());
    const bool touched = tensor.name == "blk.0.attn_q.weight" || tensor.name == "token_embd.weight";
    EXPECT_EQ(same, !touched) << tensor.name;
  }
}

TEST(Quantize, ImportanceOfAnotherModelIsRefused) {
  const TemporaryFolder folder;
  calib::Imatrix imatrix;
  imatrix.chunk_count = 1;
  imatrix.chunk_size = 512;
  imatrix.entries["blk.0.attn_q.weight"] = {{1, 2, 3}, {512}};
  calib::save_imatrix(imatrix, folder / "imatrix.gguf", calib::ImatrixFormat::kGguf);
  QuantizeRequest r = request(kModel, folder / "out.gguf", "q4_k_m");
  r.imatrix = folder / "imatrix.gguf";
  EXPECT_SAYS(message_of(r), "'blk.0.attn_q.weight' has 3 values, the tensor 256 columns");
  imatrix.entries.clear();
  imatrix.entries["encoder.0.weight"] = {{1, 2, 3}, {512}};
  calib::save_imatrix(imatrix, folder / "imatrix.gguf", calib::ImatrixFormat::kGguf);
  EXPECT_SAYS(message_of(r), "names no tensor of this model");
}

TEST(Quantize, WeightsThatAreNoNumbersAreNamed) {
  const TemporaryFolder folder;
  const std::string model = tiny(folder);
  const std::string name =
      poison(model, "model.layers.1.mlp.up_proj.weight", 5, 3, std::numeric_limits<float>::quiet_NaN());
  const std::string text = message_of(request(model, folder / "out.gguf", "q4_0"));
  EXPECT_SAYS(text, "blk.1.ffn_up.weight");
  EXPECT_SAYS(text, "row 5, column 3: the weight is NaN");
  poison(model, name, 5, 3, -std::numeric_limits<float>::infinity());
  EXPECT_SAYS(message_of(request(model, folder / "out.gguf", "q8_0")), "row 5, column 3: the weight is -infinity");
  poison(model, name, 5, 3, 1e6f);
  EXPECT_SAYS(message_of(request(model, folder / "out.gguf", "f16")), "row 5, column 3: 1000000 cannot be held in f16");
  EXPECT_EQ(files_in(folder), 1u) << "only the input is left";
  EXPECT_EQ(message_of(request(model, folder / "out.gguf", "bf16")), "(no error)");
}

TEST(Quantize, TheInputIsNeverTheOutput) {
  const TemporaryFolder folder;
  convert_model(conversion(tiny(folder), folder / "a.gguf", "f16"));
  const std::string before = read_file(folder / "a.gguf");
  EXPECT_SAYS(message_of(request(folder / "a.gguf", folder / "a.gguf", "q4_0")), "it cannot be the output too");
  std::filesystem::create_symlink(folder / "a.gguf", folder / "link.gguf");
  EXPECT_SAYS(message_of(request(folder / "link.gguf", folder / "a.gguf", "q4_0")), "it cannot be the output too");
  EXPECT_TRUE(read_file(folder / "a.gguf") == before);
}

TEST(Quantize, MetadataAndUnknownArchitecturesSurvive) {
  const TemporaryFolder folder;
  convert_model(conversion(tiny(folder), folder / "a.gguf", "f16"));
  const auto reader = container::open(folder / "a.gguf");
  container::Metadata metadata = reader->metadata();
  metadata.set("general.architecture", std::string("strange"));
  metadata.set("strange.block_count", std::uint32_t{2});
  metadata.set("custom.note", std::string("kept"));
  metadata.set("split.count", std::uint16_t{0});
  std::vector<container::PlannedTensor> plan;
  for (const auto& entry : reader->tensors()) plan.push_back({entry.name, entry.view.encoding, entry.view.shape});
  const auto writer = container::create_gguf(folder / "strange.gguf", metadata, plan);
  for (std::size_t i = 0; i < plan.size(); ++i) writer->write(i, 0, reader->tensors()[i].view.data());
  writer->commit();

  const QuantizeReport report = quantize_model(request(folder / "strange.gguf", folder / "q.gguf", "q8_0"));
  ASSERT_EQ(report.notes.size(), 1u);
  EXPECT_SAYS(report.notes[0], "architecture 'strange' is not known");
  const auto out = container::open(folder / "q.gguf");
  EXPECT_EQ(out->metadata().get_string("custom.note"), "kept");
  EXPECT_EQ(out->metadata().get_int("general.file_type"), 7);
  EXPECT_FALSE(out->metadata().contains("split.count"));
  EXPECT_EQ(out->at("blk.0.attn_q.weight").view.encoding->name, "q8_0");
  EXPECT_EQ(out->at("blk.0.attn_norm.weight").view.encoding->name, "f32");
}

TEST(Quantize, QuantizingAgainIsNoted) {
  const TemporaryFolder folder;
  quantize_model(request(kModel, folder / "q8.gguf", "q8_0"));
  const QuantizeReport again = quantize_model(request(folder / "q8.gguf", folder / "q4.gguf", "q4_0"));
  ASSERT_EQ(again.notes.size(), 1u);
  EXPECT_SAYS(again.notes[0], "57 tensors of the input are quantized already (q8_0)");
  const QuantizeReport copy = quantize_model(request(folder / "q8.gguf", folder / "copy.gguf", "q8_0"));
  EXPECT_TRUE(copy.notes.empty());
  for (const TensorReport& tensor : copy.tensors) EXPECT_EQ(tensor.method, "copy") << tensor.name;
  EXPECT_TRUE(read_file(folder / "q8.gguf") == read_file(folder / "copy.gguf"));
}

TEST(Quantize, FoldersOfAnotherTypeKeepEverything) {
  const TemporaryFolder folder;
  ConvertRequest to_f32 = conversion(kModel, folder / "f32", "f32");
  to_f32.shard_bytes = 4'000'000;  // 29 MB of weights
  const QuantizeReport report = convert_model(to_f32);
  EXPECT_TRUE(std::filesystem::exists(folder / "f32/model.safetensors.index.json"));
  EXPECT_FALSE(std::filesystem::exists(folder / "f32/model.safetensors"));
  EXPECT_GE(container::open(folder / "f32")->files().size(), 7u);
  EXPECT_EQ(container::open(folder / "f32")->file_bytes(), report.file_bytes);
  convert_model(conversion(folder / "f32", folder / "bf16", "bf16"));
  EXPECT_TRUE(std::filesystem::exists(folder / "bf16/tokenizer.model"));
  EXPECT_EQ(json::parse_file(folder / "bf16/config.json").at("torch_dtype").as_string(), "bfloat16");
  const auto original = container::open(kModel);
  const auto copy = container::open(folder / "bf16");
  ASSERT_EQ(copy->tensors().size(), original->tensors().size());
  for (const container::TensorEntry& entry : original->tensors()) {
    const auto a = entry.view.data();
    const auto b = copy->at(entry.name).view.data();
    EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end())) << entry.name;
  }
  EXPECT_THROW(convert_model(conversion(kModel, folder / "f32", "f32")), Error) << "a folder is not overwritten";
}

TEST(Quantize, AWeightFileGivesTheSameAsItsFolder) {
  const TemporaryFolder folder;
  quantize_model(request(kModel, folder / "a.gguf", "q4_k_m"));
  quantize_model(request(kModel + "/model.safetensors", folder / "b.gguf", "q4_k_m"));
  EXPECT_TRUE(read_file(folder / "a.gguf") == read_file(folder / "b.gguf"));
  convert_model(conversion(kModel + "/model.safetensors", folder / "f16", "f16"));
  EXPECT_TRUE(std::filesystem::exists(folder / "f16/tokenizer.model"));
}

TEST(Quantize, GgufFilesBecomeFolders) {
  int converted = 0;
  for (const testing::TinyVariant& variant : testing::tiny_variants()) {
    const TemporaryFolder folder;
    testing::write_tiny_model(folder / "model", variant.config);
    convert_model(conversion(folder / "model", folder / "a.gguf", "bf16"));
    try {
      convert_model(conversion(folder / "a.gguf", folder / "back", "bf16"));
      ++converted;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported) << variant.name << ": " << error.what();
      EXPECT_FALSE(std::filesystem::exists(folder / "back"));
      continue;
    }
    const auto from = container::open(folder / "model");
    const auto to = container::open(folder / "back");
    ASSERT_EQ(from->tensors().size(), to->tensors().size()) << variant.name;
    for (const container::TensorEntry& entry : from->tensors()) {
      const container::TensorEntry& other = to->at(entry.name);
      std::vector<float> a(static_cast<std::size_t>(entry.view.shape.elements())), b(a.size());
      encoding::decode_rows(entry.view, 0, entry.view.rows(), a.data());
      encoding::decode_rows(other.view, 0, other.view.rows(), b.data());
      for (std::size_t i = 0; i < a.size(); ++i) {
        ASSERT_NEAR(a[i], b[i], 0.01f * std::abs(a[i])) << variant.name << " " << entry.name;
      }
    }
    // Again to GGUF: the same keys, or the configuration lost something.
    convert_model(conversion(folder / "back", folder / "b.gguf", "bf16"));
    const auto a = container::open(folder / "a.gguf");
    const auto b = container::open(folder / "b.gguf");
    for (const auto& [key, value] : a->metadata().entries()) {
      if (key == "general.name") continue;  // that of the folder
      ASSERT_NE(b->metadata().find(key), nullptr) << variant.name << " " << key;
      EXPECT_TRUE(*b->metadata().find(key) == value) << variant.name << " " << key;
    }
  }
  EXPECT_GT(converted, 8);
}

TEST(Quantize, MixMadeForImportanceIsRefusedWithout) {
  QuantizeRequest r = request(kModel, "out.gguf", "q2_k_s");
  r.dry_run = true;
  EXPECT_SAYS(message_of(r), "'q2_k_s' needs an importance matrix: make one with 'nibble imatrix " + kModel);
  r.method = "rtn";
  EXPECT_EQ(message_of(r), "(no error)");
}

TEST(Quantize, WrongWordsAreNamed) {
  QuantizeRequest r = request(kModel, "out.gguf", "q4_k_m");
  r.dry_run = true;
  r.method = "magic";
  EXPECT_SAYS(message_of(r), "no method 'magic'");
  r.method.clear();
  r.rounding = "up";
  EXPECT_SAYS(message_of(r), "unknown rounding 'up'");
  r.rounding = "nearest";
  r.type = "q4_k_x";
  EXPECT_SAYS(message_of(r), "near ones: q4_k_m, q4_k_s");
  r.type = "iq2_xs";
  EXPECT_SAYS(message_of(r), "can be read but not written");
}

TEST(Quantize, StopsWhenAsked) {
  const TemporaryFolder folder;
  CancelToken cancel;
  cancel.cancel();
  RunContext run;
  run.cancel = &cancel;
  try {
    quantize_model(request(kModel, folder / "out.gguf", "q4_k_m"), run);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCancelled);
  }
  EXPECT_EQ(files_in(folder), 0u);
}

}  // namespace
}  // namespace nibble
