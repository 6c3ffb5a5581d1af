// Reports of quantize and convert as text and JSON.
#include <algorithm>

#include "base/format.h"
#include "json/json.h"
#include "nibble/quantize.h"

namespace nibble {

namespace {

json::Value tensor_json(const TensorReport& tensor, bool dry_run) {
  json::Value value;
  value.set("name", tensor.name);
  if (!tensor.hf_name.empty()) value.set("hf_name", tensor.hf_name);
  json::Array shape;
  for (const std::int64_t dim : tensor.shape) shape.emplace_back(dim);
  value.set("shape", std::move(shape));
  value.set("source_type", tensor.source_type);
  value.set("type", tensor.type);
  value.set("method", tensor.method);
  value.set("bytes", tensor.bytes);
  if (!tensor.note.empty()) value.set("note", tensor.note);
  if (tensor.predicted_loss > 0) value.set("predicted_loss", tensor.predicted_loss);
  if (dry_run) return value;
  value.set("relative_mse", tensor.relative_mse);
  value.set("snr_db", tensor.snr_db);
  value.set("cosine", tensor.cosine);
  value.set("cpu_s", tensor.seconds);
  return value;
}

std::string shape_text(const TensorReport& tensor) {
  std::string text;
  for (const std::int64_t dim : tensor.shape) text += (text.empty() ? "" : " x ") + std::to_string(dim);
  return text;
}

// "q4_k 113, q6_k 34, f32 33": how many tensors of each type, most first.
std::string type_counts(const QuantizeReport& report) {
  std::vector<std::pair<std::string, int>> counts;
  for (const TensorReport& tensor : report.tensors) {
    const auto found =
        std::find_if(counts.begin(), counts.end(), [&](const auto& c) { return c.first == tensor.type; });
    if (found != counts.end()) {
      ++found->second;
    } else {
      counts.emplace_back(tensor.type, 1);
    }
  }
  std::stable_sort(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string text;
  for (const auto& [type, count] : counts) text += format_text("{}{} {}", text.empty() ? "" : ", ", type, count);
  return text;
}

std::string plan_table(const QuantizeReport& report) {
  std::size_t width = 6;
  for (const TensorReport& tensor : report.tensors) width = std::max(width, tensor.name.size());
  std::string text = format_text("{:<{}}  {:>18}  {:>6} -> {:<7} {:<7} {:>9}  {}\n", "tensor", width, "shape", "from",
                                 "to", "method", "size", "note");
  for (const TensorReport& tensor : report.tensors) {
    text += format_text("{:<{}}  {:>18}  {:>6} -> {:<7} {:<7} {:>9}  {}\n", tensor.name, width, shape_text(tensor),
                        tensor.source_type, tensor.type, tensor.method, format_bytes(tensor.bytes), tensor.note);
  }
  return text;
}

// The tensors that lost most.
std::string worst_tensors(const QuantizeReport& report) {
  std::vector<const TensorReport*> lossy;
  for (const TensorReport& tensor : report.tensors) {
    if (tensor.relative_mse > 0) lossy.push_back(&tensor);
  }
  if (lossy.empty()) return {};
  const std::size_t n = std::min<std::size_t>(3, lossy.size());
  std::partial_sort(lossy.begin(), lossy.begin() + static_cast<std::ptrdiff_t>(n), lossy.end(),
                    [](const TensorReport* a, const TensorReport* b) { return a->relative_mse > b->relative_mse; });
  std::string text = "largest error: ";
  for (std::size_t i = 0; i < n; ++i) {
    text += format_text("{}{} {} ({:.1f} dB)", i == 0 ? "" : ", ", lossy[i]->name, lossy[i]->type, lossy[i]->snr_db);
  }
  return text + "\n";
}

void add_auto(const QuantizeReport& report, json::Value& value) {
  value.set("size_limit", report.size_limit);
  if (report.predicted_kld > 0) value.set("predicted_kld", report.predicted_kld);
  json::Array compared;
  for (const ComparedFile& file : report.compared) {
    json::Value item;
    item.set("recipe", file.recipe);
    item.set("bytes", file.bytes);
    if (file.kld > 0) item.set("kld", file.kld);
    compared.push_back(std::move(item));
  }
  value.set("compared", std::move(compared));
}

// What type auto came to: measured against the stock mix of that size, or predicted.
std::string auto_text(const QuantizeReport& report) {
  std::string text = format_text("at most {} bytes", report.size_limit);
  if (report.predicted_kld > 0) text += format_text("; auto: KL divergence {:.6f} predicted", report.predicted_kld);
  for (const ComparedFile& file : report.compared) {
    if (file.kld > 0) text += format_text("; {}: {:.6f} measured, {} bytes", file.recipe, file.kld, file.bytes);
  }
  if (report.compared.size() > 1) text += format_text("; {} is kept", report.compared[0].recipe);
  return text + "\n";
}

json::Value phases_json(const PhaseSeconds& phases) {
  json::Value value;
  value.set("forward_s", phases.forward);
  value.set("statistics_s", phases.statistics);
  value.set("transforms_s", phases.transforms);
  value.set("solving_s", phases.solving);
  value.set("tuning_s", phases.tuning);
  return value;
}

std::string phases_text(const PhaseSeconds& phases) {
  std::string text = format_text("running blocks {}, statistics {}, ", format_duration(phases.forward),
                                 format_duration(phases.statistics));
  if (phases.transforms > 0) text += format_text("transforms {}, ", format_duration(phases.transforms));
  text += format_text("solving {}", format_duration(phases.solving));
  return text + (phases.tuning > 0 ? format_text(", tuning {}\n", format_duration(phases.tuning)) : "\n");
}

}  // namespace

std::string to_json(const QuantizeReport& report) {
  json::Value value;
  value.set("input", report.input);
  value.set("output", report.output);
  value.set("recipe", report.recipe);
  value.set("architecture", report.architecture);
  value.set("dry_run", report.dry_run);
  value.set("parameters", report.parameters);
  value.set("input_bytes", report.input_bytes);
  value.set("tensor_bytes", report.tensor_bytes);
  if (!report.dry_run) value.set("file_bytes", report.file_bytes);
  value.set("bits_per_weight", report.bits_per_weight);
  value.set("fallbacks", report.fallbacks);
  if (!report.dry_run) {
    value.set("threads", report.threads);
    value.set("seconds", report.seconds);
    if (report.phases.solving > 0) value.set("phases", phases_json(report.phases));
  }
  if (report.size_limit > 0) add_auto(report, value);
  json::Array notes;
  for (const std::string& note : report.notes) notes.emplace_back(note);
  value.set("notes", std::move(notes));
  json::Array tensors;
  for (const TensorReport& tensor : report.tensors) tensors.push_back(tensor_json(tensor, report.dry_run));
  value.set("tensors", std::move(tensors));
  return json::dump(value);
}

std::string to_text(const QuantizeReport& report) {
  std::string text;
  if (report.dry_run) {
    text += plan_table(report);
    for (const std::string& note : report.notes) text += "note: " + note + "\n";
  }
  text += format_text("{} parameters, {}: {}\n", format_count(report.parameters), report.recipe, type_counts(report));
  if (report.fallbacks > 0) {
    text += format_text("{} tensors have rows that do not fit the recipe's type and got another\n", report.fallbacks);
  }
  if (report.phases.solving > 0) text += phases_text(report.phases);
  if (report.size_limit > 0) text += auto_text(report);
  if (report.dry_run) {
    text += format_text("would write {} of weights, {:.2f} bits per weight, from {}\n",
                        format_bytes(report.tensor_bytes), report.bits_per_weight, format_bytes(report.input_bytes));
    return text;
  }
  text += worst_tensors(report);
  text += format_text("wrote {} ({}, {:.2f} bits per weight) in {}\n", report.output, format_bytes(report.file_bytes),
                      report.bits_per_weight, format_duration(report.seconds));
  return text;
}

}  // namespace nibble
