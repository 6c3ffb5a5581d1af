// The measuring calls on the bundled model: figures that must agree with each other or with llama-imatrix, and bad
// input.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/atomic_file.h"
#include "base/error.h"
#include "calib/imatrix.h"
#include "container/checkpoint.h"
#include "json/json.h"
#include "nibble/bench.h"
#include "nibble/evaluate.h"
#include "nibble/generate.h"
#include "nibble/imatrix.h"
#include "nibble/quantize.h"
#include "testing/program.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

const fs::path kRoot = NIBBLE_SOURCE_DIR;
const fs::path kModel = kRoot / "models/books-7m";

class Measuring : public ::testing::Test {
 protected:
  Measuring() { write_file_atomically(text(), read_file(kRoot / "text/books-calib.txt").substr(0, 20000)); }
  fs::path text() const { return folder_ / "text.txt"; }
  EvaluateRequest request() const {
    EvaluateRequest request;
    request.model = kModel;
    request.text = text();
    request.context = 32;
    request.chunks = 4;
    return request;
  }
  std::string quantized(const std::string& type) {
    QuantizeRequest call;
    call.input = kModel.string();
    call.output = folder_ / (type + ".gguf");
    call.type = type;
    quantize_model(call);
    return call.output;
  }
  template <typename Call>
  std::string refusal(Call&& call) {
    try {
      call();
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }
  std::string evaluate_refusal(const EvaluateRequest& call) {
    return refusal([&] { evaluate({}, call); });
  }

  TemporaryFolder folder_;
};
using MeasuringSlow = Measuring;

TEST_F(Measuring, ModelAgainstItself) {
  EvaluateRequest call = request();
  call.reference = kModel;
  call.exact = true;
  const json::Value report = json::parse(evaluate({}, call).json);
  EXPECT_EQ(report.at("kld_mean_exact").as_number(), 0);
  EXPECT_EQ(report.at("top1_exact").as_number(), 1);
  EXPECT_EQ(report.at("perplexity_exact").as_number(), report.at("perplexity_reference").as_number());
  EXPECT_NEAR(report.at("perplexity").as_number() / report.at("perplexity_exact").as_number(), 1, 1e-3);
  EXPECT_LT(report.at("kld_mean").as_number(), 1e-5);
  EXPECT_EQ(report.at("tokens_scored").as_int(), 4 * 15);
  EXPECT_NEAR(report.at("bits_per_weight").as_number(), 16, 0.1);
}

TEST_F(Measuring, TwoCandidatesAndFiguresPerToken) {
  EvaluateRequest call = request();
  call.model = quantized("q8_0");
  call.reference = kModel;
  call.versus = quantized("q4_0");
  call.per_token = folder_ / "tokens.csv";
  call.tensors = call.layers = call.energy = true;
  const Report report = evaluate({}, call);
  const json::Value figures = json::parse(report.json);
  const json::Value& versus = figures.at("versus");
  EXPECT_LT(figures.at("kld_mean").as_number(), versus.at("kld_mean").as_number());
  EXPECT_NEAR(versus.at("kld_ratio").as_number(),
              figures.at("kld_mean").as_number() / versus.at("kld_mean").as_number(), 1e-9);
  EXPECT_LE(versus.at("kld_ratio_low").as_number(), versus.at("kld_ratio").as_number());
  EXPECT_GE(versus.at("kld_ratio_high").as_number(), versus.at("kld_ratio").as_number());
  EXPECT_LT(versus.at("kld_ratio_high").as_number(), 1);
  EXPECT_EQ(figures.at("tensors").as_array().size(), 74u);
  EXPECT_EQ(figures.at("layers").as_array().size(), 9u);
  EXPECT_THAT(report.text, HasSubstr("95 % interval"));

  const std::string csv = read_file(call.per_token);
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 1 + 60);
  EXPECT_THAT(csv, ::testing::StartsWith("chunk,position,nll,kld,delta_p,same_top\n0,17,"));
  call.per_token = folder_ / "tokens.bin";
  call.versus.clear();
  call.tensors = call.layers = call.energy = false;
  evaluate({}, call);
  EXPECT_EQ(read_file(call.per_token).size(), 60 * sizeof(float));
}

TEST_F(Measuring, SavedLogProbabilitiesAreOfTheExactPathIfItIsRun) {
  EvaluateRequest call = request();
  call.save_logits = folder_ / "fast";
  evaluate({}, call);
  call.save_logits = folder_ / "exact";
  call.exact = true;
  evaluate({}, call);
  const std::string fast = read_file(folder_ / "fast"), exact = read_file(folder_ / "exact");
  const std::size_t header = 20 + 4 * 32 * 4;
  EXPECT_EQ(exact.size(), header + 60 * (8 + 2 * 4096));
  EXPECT_EQ(fast.size(), exact.size());
  EXPECT_EQ(fast.substr(0, header), exact.substr(0, header));
  EXPECT_NE(fast, exact);
  EvaluateRequest reference = request();
  reference.reference = kModel;  // held as the truth, it is not what is saved
  reference.save_logits = folder_ / "again";
  evaluate({}, reference);
  EXPECT_EQ(read_file(folder_ / "again"), fast);
}

TEST_F(MeasuringSlow, TasksBesideAReferenceAndAnotherModel) {
  EvaluateRequest call;
  call.model = kModel;
  call.reference = kModel;
  call.versus = quantized("q2_k");
  call.tasks = {kRoot / "text/books-tasks.jsonl"};
  call.exact = true;
  call.kv_cache = "f32";
  const Report report = evaluate({}, call);
  const json::Value figures = json::parse(report.json);
  ASSERT_EQ(figures.at("tasks").as_array().size(), 2u);
  for (const json::Value& task : figures.at("tasks").as_array()) {
    EXPECT_EQ(task.at("items").as_int(), 6);
    EXPECT_EQ(task.at("cut").as_int(), 0);
    EXPECT_EQ(task.at("accuracy_exact"), task.at("accuracy_reference"));
    EXPECT_EQ(task.at("target_perplexity_exact"), task.at("target_perplexity_reference"));
    EXPECT_EQ(task.at("flips_exact").as_number(), 0);
    EXPECT_EQ(task.at("mcnemar_p_exact").as_number(), 1);
    const json::Value& versus = task.at("versus");
    EXPECT_NEAR(versus.at("target_log_probability_difference").as_number(),
                task.at("target_log_probability").as_number() - versus.at("target_log_probability").as_number(), 1e-9);
    EXPECT_LE(versus.at("accuracy_difference_low").as_number(), versus.at("accuracy_difference").as_number());
    EXPECT_GE(versus.at("accuracy_difference_high").as_number(), versus.at("accuracy_difference").as_number());
    EXPECT_NE(versus.at("target_perplexity"), task.at("target_perplexity"));
  }
  EXPECT_EQ(figures.at("tasks").as_array()[0].at("kind").as_string(), "multiple_choice");
  EXPECT_NE(figures.at("tasks").as_array()[0].find("flips_norm"), nullptr);
  EXPECT_EQ(figures.at("tasks").as_array()[1].find("flips_norm"), nullptr);
  EXPECT_EQ(figures.find("perplexity"), nullptr);
  EXPECT_THAT(report.text, HasSubstr("task books-next: multiple choice, 6 items\n"));
}

TEST_F(Measuring, TasksBesideATextAndBadOnes) {
  EvaluateRequest call = request();
  call.tasks = {folder_ / "own.jsonl", folder_ / "own.jsonl"};
  write_file_atomically(folder_ / "own.jsonl", "{\"text\": \"Once upon a time there was a king\"}\n");
  call.task_context = 6;
  const json::Value figures = json::parse(evaluate({}, call).json);
  EXPECT_NE(figures.find("perplexity"), nullptr);
  const json::Value& task = figures.at("tasks").as_array()[0];
  EXPECT_EQ(task.at("task").as_string(), "own");
  EXPECT_EQ(task.at("items").as_int(), 2);
  EXPECT_EQ(task.at("cut").as_int(), 2);
  call.task_context = 257;
  EXPECT_THAT(evaluate_refusal(call), HasSubstr("1 to 256 are possible"));
  call.task_context = 0;
  write_file_atomically(folder_ / "own.jsonl", "{\"text\": \"a b\"}\n{\"text\": 5}\n");
  EXPECT_THAT(evaluate_refusal(call), HasSubstr("own.jsonl:2: "));
  write_file_atomically(folder_ / "own.jsonl", "\n");
  EXPECT_THAT(evaluate_refusal(call), HasSubstr("own.jsonl: no items"));
  call.tasks = {folder_ / "absent.jsonl"};
  EXPECT_THAT(evaluate_refusal(call), HasSubstr("absent.jsonl"));
}

TEST_F(Measuring, TextsThatCannotBeEvaluated) {
  EvaluateRequest call = request();
  write_file_atomically(text(), "");
  EXPECT_THAT(evaluate_refusal(call), HasSubstr("text.txt': the text is empty"));
  write_file_atomically(text(), "Too short a text.");
  EXPECT_THAT(evaluate_refusal(call), HasSubstr("fewer than one chunk of 32"));
  call.text = folder_ / "absent.txt";
  EXPECT_THAT(evaluate_refusal(call), HasSubstr("absent.txt"));
}

TEST_F(Measuring, RequestsThatMakeNoSense) {
  EvaluateRequest call = request();
  call.protocol = "gptq";
  EXPECT_THAT(evaluate_refusal(call), HasSubstr("unknown protocol"));
  call = request();
  call.layers = true;
  EXPECT_THAT(evaluate_refusal(call), HasSubstr("need a reference"));
  call = request();
  call.text.clear();
  EXPECT_THAT(evaluate_refusal(call), HasSubstr("nothing to evaluate"));
  call = request();
  call.protocol = "window";
  call.save_logits = folder_ / "logits";
  EXPECT_THAT(evaluate_refusal(call), HasSubstr("protocol llama.cpp only"));
  EXPECT_FALSE(fs::exists(call.save_logits));
  call = request();
  call.kv_cache = "int5";
  EXPECT_THAT(evaluate_refusal(call), HasSubstr("unknown KV cache type 'int5'; near it: int8, int4"));
  call = request();
  call.model = folder_.path() / "absent.gguf";
  EXPECT_THAT(evaluate_refusal(call), HasSubstr("absent.gguf"));
}

TEST_F(Measuring, ModelWithoutTokenizer) {
  const fs::path bare = folder_.path() / "bare";
  fs::create_directory(bare);
  for (const char* name : {"config.json", "model.safetensors"}) fs::create_symlink(kModel / name, bare / name);
  EvaluateRequest call = request();
  call.model = bare;
  EXPECT_THAT(evaluate_refusal(call), HasSubstr("tokenizer"));
}

TEST_F(Measuring, DifferentVocabulariesAreNotCompared) {
  const std::string path = quantized("q8_0");
  std::string bytes = read_file(path);
  const std::size_t at = bytes.find("\xE2\x96\x81the");  // the token " the"
  ASSERT_NE(at, std::string::npos);
  bytes[at + 3] = 'T';
  bytes[at + 4] = '\x01';
  write_file_atomically(folder_ / "other.gguf", bytes);
  EvaluateRequest call = request();
  call.reference = kModel;
  call.model = folder_ / "other.gguf";
  EXPECT_THAT(evaluate_refusal(call), HasSubstr("different vocabularies"));
}

TEST_F(Measuring, WeightsThatAreNotNumbers) {
  const std::string path = quantized("q8_0");
  const auto reader = container::open(path);
  std::string bytes = read_file(path);
  const float nan = std::nanf("");
  std::memcpy(bytes.data() + reader->at("output_norm.weight").offset, &nan, sizeof nan);
  write_file_atomically(folder_ / "nan.gguf", bytes);
  EvaluateRequest call = request();
  call.model = folder_ / "nan.gguf";
  EXPECT_EQ(evaluate_refusal(call),
            call.model.string() + ": tensor 'output_norm.weight' holds a value that is NaN or infinite");
}

TEST_F(Measuring, ImatrixAgreesWithLlamaImatrix) {
  ImatrixRequest call;
  call.model = kModel;
  call.text = text();
  call.out = folder_ / "imatrix.gguf";
  call.context = 64;
  call.chunks = 2;
  make_imatrix({}, call);
  const calib::Imatrix ours = calib::load_imatrix(call.out);
  // Collected from a model cut after the first block, whose inputs are the same.
  const calib::Imatrix theirs = calib::load_imatrix(kRoot / "src/calib/testdata/block0.gguf");
  for (const auto& [name, entry] : theirs.entries) {
    const calib::ImatrixEntry* own = ours.find(name);
    ASSERT_NE(own, nullptr) << name;
    EXPECT_EQ(own->counts, entry.counts);
    double difference = 0, sum = 0;
    for (std::size_t i = 0; i < entry.sums.size(); ++i) {
      EXPECT_NEAR(own->sums[i] / entry.sums[i], 1, 4e-3) << name << " " << i;  // theirs rounds activations to f16
      difference += std::pow(own->sums[i] - entry.sums[i], 2);
      sum += std::pow(entry.sums[i], 2);
    }
    EXPECT_LT(std::sqrt(difference / sum), 1e-3) << name;
  }
  EXPECT_EQ(ours.entries.size(), 8u * 7u + 1u);
  ASSERT_NE(ours.find("token_embd.weight"), nullptr);  // the head is tied
  EXPECT_EQ(ours.find("token_embd.weight")->sums.size(), 256u);
  EXPECT_EQ(ours.chunk_size, 64);

  // Batches and threads change nothing; merging two runs doubles the counts.
  call.out = folder_ / "again.gguf";
  call.merge = {folder_ / "imatrix.gguf"};
  make_imatrix({.threads = 1}, call);
  const calib::Imatrix both = calib::load_imatrix(call.out);
  const std::string name = "blk.7.ffn_down.weight";
  EXPECT_EQ(both.find(name)->counts[0], 256);
  for (std::size_t i = 0; i < both.find(name)->sums.size(); ++i) {
    EXPECT_FLOAT_EQ(static_cast<float>(both.find(name)->sums[i]), static_cast<float>(2 * ours.find(name)->sums[i]));
  }
}

TEST_F(Measuring, ImatrixRequests) {
  ImatrixRequest call;
  call.out = folder_ / "imatrix.gguf";
  EXPECT_THAT(refusal([&] { make_imatrix({}, call); }), HasSubstr("give a text"));
  call.text = text();
  EXPECT_THAT(refusal([&] { make_imatrix({}, call); }), HasSubstr("needs a model"));
  call.model = kModel;
  call.format = "csv";
  EXPECT_THAT(refusal([&] { make_imatrix({}, call); }), HasSubstr("unknown format"));
  call.format.clear();
  call.dry_run = true;
  EXPECT_THAT(make_imatrix({}, call).text, HasSubstr("would write"));
  EXPECT_FALSE(fs::exists(call.out));
}

TEST_F(Measuring, ADryRunOfAnImatrixReportsWhatTheRunWillWrite) {
  for (const char* name : {"imatrix.gguf", "imatrix.dat"}) {
    ImatrixRequest call;
    call.model = kModel;
    call.text = text();
    call.out = folder_ / name;
    call.context = 64;
    call.chunks = 2;
    call.dry_run = true;
    json::Value planned = json::parse(make_imatrix({}, call).json);
    EXPECT_FALSE(fs::exists(call.out));
    EXPECT_EQ(planned.at("entries").as_int(), 8 * 7 + 1);
    EXPECT_EQ(planned.at("chunks").as_int(), 2);
    call.dry_run = false;
    const json::Value made = json::parse(make_imatrix({}, call).json);
    EXPECT_EQ(made.at("bytes").as_int(), static_cast<std::int64_t>(fs::file_size(call.out))) << name;
    planned.set("dry_run", false);
    EXPECT_EQ(planned, made) << name;

    // With files to merge, too.
    call.merge = {call.out};
    call.dry_run = true;
    planned = json::parse(make_imatrix({}, call).json);
    EXPECT_EQ(planned.at("entries").as_int(), 8 * 7 + 1);
    EXPECT_EQ(planned.at("chunks").as_int(), 4);
  }
}

TEST_F(Measuring, GreedyTextIsTheSameEveryTime) {
  GenerateRequest call;
  call.model = kModel;
  call.prompt = "Once upon a";
  call.max_tokens = 12;
  std::string shown;
  const json::Value report = json::parse(generate_text({}, call, [&](std::string_view piece) { shown += piece; }).json);
  EXPECT_EQ(report.at("tokens").as_array().size(), 12u);
  EXPECT_EQ(shown, call.prompt + report.at("text").as_string());
  const json::Value again = json::parse(generate_text({.threads = 1}, call).json);
  EXPECT_EQ(again.at("text"), report.at("text"));
  call.max_tokens = -1;
  EXPECT_THAT(refusal([&] { generate_text({}, call); }), HasSubstr("-1 tokens"));
  call.max_tokens = 1;
  call.temperature = -1;
  EXPECT_NE(refusal([&] { generate_text({}, call); }), "accepted");
}

TEST_F(Measuring, BenchHasItsKeys) {
  BenchRequest call;
  call.model = kModel;
  call.prompt = 16;
  call.generate = 2;
  call.repetitions = 1;
  call.roofline_bytes = 64 << 20;
  call.compare = {"echo '[{\"n_prompt\": 512, \"n_gen\": 0, \"avg_ts\": 0.5}]'"};
  const json::Value report = json::parse(bench({}, call).json);
  EXPECT_DOUBLE_EQ(report.at("compare").as_array()[0].at("prefill_ratio").as_number(),
                   report.at("prefill_tok_s").as_number() / 0.5);
  EXPECT_GT(report.at("prefill_tok_s").as_number(), 0);
  EXPECT_GT(report.at("decode_tok_s").as_number(), 0);
  EXPECT_GT(report.at("decode_gb_s").as_number(), 0);
  EXPECT_TRUE(report.at("decode_bandwidth_fraction").is_null());  // so small a model is read from the caches
  EXPECT_LE(report.at("prefill_peak_fraction").as_number(), 1);
  call.repetitions = 0;
  EXPECT_THAT(refusal([&] { bench({}, call); }), HasSubstr("nothing to measure"));
}

}  // namespace
}  // namespace nibble
