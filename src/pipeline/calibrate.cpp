#include "nibble/calibrate.h"

#include <algorithm>
#include <optional>

#include "base/atomic_file.h"
#include "base/error.h"
#include "calib/collect_statistics.h"
#include "pipeline/calibrated.h"
#include "pipeline/coverage.h"
#include "pipeline/loading.h"

namespace nibble {

namespace {

using calib::InputCoverage;
using calib::StatisticsFile;
using calib::StatisticsHeader;

class Calibration {
 public:
  Calibration(ExecContext& context, const CalibrateRequest& request) : context_(context), request_(request) {}

  Report run() {
    check_request();
    for (const std::filesystem::path& file : request_.merge) files_.emplace_back(file);
    if (!request_.text.empty()) plan();
    if (!plan_) header_ = files_[0].header();
    for (const StatisticsFile& file : files_) take_texts_of(file);
    if (!request_.dry_run) work();
    return report();
  }

 private:
  void check_request() const {
    if (request_.text.empty() && request_.merge.empty())
      fail(ErrorCode::kInvalidArgument, "give a text, or statistics to merge");
    if (!request_.text.empty() && request_.model.empty())
      fail(ErrorCode::kInvalidArgument, "a text needs a model to run");
    if (request_.text.empty() && !request_.model.empty())
      fail(ErrorCode::kInvalidArgument, "a model needs a text to run over; statistics are merged without it");
    if (request_.out.empty() && !request_.text.empty()) fail(ErrorCode::kInvalidArgument, "no output file");
  }

  void plan() {
    source_ = model::ModelSource::open(request_.model);
    chunks_ = pipeline::calibration_chunks(*source_, {request_.text, request_.tokens, request_.context});
    plan_ = calib::plan_statistics(context_, source_, calib::parse_statistics_kinds(request_.statistics));
    header_ = plan_->header;
    header_.texts = {{request_.text.filename().string(), calib::text_hash(read_file(request_.text)),
                      chunks_.n_chunks * chunks_.context, chunks_.context}};
  }

  // Of what is merged: the same text twice counts twice.
  void take_texts_of(const StatisticsFile& file) {
    const std::string first = plan_ ? request_.model.string() : "statistics '" + files_[0].path().string() + "'";
    calib::check_same_model(header_, first, file.header(), "statistics '" + file.path().string() + "'");
    if (!plan_ && &file == &files_[0]) return;
    for (const calib::StatisticsText& text : file.header().texts) {
      if (std::ranges::find(header_.texts, text.hash, &calib::StatisticsText::hash) != header_.texts.end())
        warnings_.push_back(format_text("text '{}' of '{}' is counted again", text.name, file.path().string()));
      header_.texts.push_back(text);
    }
  }

  void work() {
    std::optional<calib::StatisticsWriter> writer;
    if (!request_.out.empty()) writer.emplace(request_.out, header_);
    coverage_ = plan_ ? calib::collect_statistics(context_, source_, *plan_, chunks_, files_, *writer)
                      : calib::merge_statistics(context_, files_, writer ? &*writer : nullptr);
    for (std::string& warning : pipeline::coverage_warnings(header_, coverage_))
      warnings_.push_back(std::move(warning));
    context_.check_cancelled();
    if (writer) writer->commit();
  }

  Report report() const {
    json::Value object;
    object.set("out", request_.out.string());
    object.set("architecture", header_.architecture);
    object.set("model", header_.model);
    object.set("statistics", calib::statistics_kinds_text(header_.kinds));
    object.set("tokens", header_.tokens());
    json::Array texts, warnings;
    std::string text;
    for (const calib::StatisticsText& each : header_.texts) {
      texts.push_back(json::Object{{"name", each.name}, {"hash", each.hash}, {"tokens", each.tokens}});
      text += format_text("text {}: {} tokens in sequences of {}\n", each.name, each.tokens, each.context);
    }
    object.set("texts", std::move(texts));
    object.set("data_bytes", header_.data_bytes());
    object.set("dry_run", request_.dry_run);
    if (!request_.dry_run) {
      object.set("inputs", pipeline::coverage_json(header_, coverage_));
      text += pipeline::coverage_table(header_, coverage_);
    }
    for (const std::string& warning : warnings_) {
      warnings.emplace_back(warning);
      text += "warning: " + warning + "\n";
    }
    object.set("warnings", std::move(warnings));
    const std::string_view verb = request_.dry_run ? "would write" : request_.out.empty() ? "looked at" : "wrote";
    const std::string what = request_.out.empty() ? files_[0].path().string() : request_.out.string();
    text += format_text("{} {}: {} of {} inputs over {} tokens, {}\n", verb, what,
                        calib::statistics_kinds_text(header_.kinds), header_.inputs.size(), header_.tokens(),
                        format_bytes(header_.data_bytes()));
    return {std::move(text), json::dump(object)};
  }

  ExecContext& context_;
  const CalibrateRequest& request_;
  std::vector<StatisticsFile> files_;
  std::shared_ptr<const model::ModelSource> source_;
  calib::TokenChunks chunks_;
  std::optional<calib::StatisticsPlan> plan_;
  StatisticsHeader header_;
  std::vector<InputCoverage> coverage_;
  std::vector<std::string> warnings_;
};

}  // namespace

Report calibrate(const RunContext& run, const CalibrateRequest& request) {
  OwnedExecContext context(run);
  return Calibration(*context, request).run();
}

}  // namespace nibble
