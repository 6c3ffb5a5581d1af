#include "jinja/runtime.h"

#include <algorithm>

namespace nibble::jinja {

Runtime::~Runtime() {
  for (const auto& space : namespaces_) space->attributes.clear();
}

void Runtime::fail_work() const {
  fail(ErrorCode::kUnsupported, "the chat template does too much work: more than {} steps", limits_.work);
}

void Runtime::check_room(std::uint64_t bytes) const {
  if (bytes > limits_.memory_bytes || held_ > limits_.memory_bytes - bytes) {
    fail(ErrorCode::kUnsupported, "the chat template needs too much memory: more than {}",
         format_bytes(limits_.memory_bytes));
  }
}

void Runtime::hold(std::uint64_t bytes) {
  check_room(bytes);
  held_ += bytes;
}

int Runtime::checked_depth(int depth) const {
  if (depth > limits_.value_depth) {
    fail(ErrorCode::kUnsupported, "the chat template nests values more than {} deep", limits_.value_depth);
  }
  return depth;
}

Value Runtime::text(std::string text, bool markup) {
  spend_copy(text.size());
  Charge charge(this, sizeof(Text) + text.size());
  return Value(std::make_shared<const Text>(std::move(text), markup, std::move(charge)));
}

Value Runtime::list(Values items, Sequence::Kind kind) {
  spend(1 + items.size() / 4);
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  auto made = std::make_shared<Sequence>();
  made->charge = Charge(this, sizeof(Sequence) + items.size() * sizeof(Value));
  made->depth = checked_depth(depth + 1);
  made->items = std::move(items);
  made->kind = kind;
  return Value(std::shared_ptr<const Sequence>(std::move(made)));
}

Value Runtime::generator(std::initializer_list<const Value*> from, std::function<Values(Runtime&)> generate) {
  spend();
  auto made = std::make_shared<Sequence>();
  made->charge = Charge(this, 2 * sizeof(Sequence));
  for (const Value* value : from) made->depth = std::max(made->depth, checked_depth(value->depth() + 1));
  made->kind = Sequence::Kind::kGenerator;
  made->generate = std::move(generate);
  return Value(std::shared_ptr<const Sequence>(std::move(made)));
}

Value Runtime::dict(std::vector<std::pair<Value, Value>> items) {
  spend(1 + items.size());
  auto made = std::make_shared<Dict>();
  made->charge = Charge(this, sizeof(Dict) + items.size() * 128);
  int depth = 0;
  for (auto& [key, value] : items) {
    if (key.is_dict() || (key.is_sequence() && key.sequence().kind != Sequence::Kind::kTuple)) {
      fail_template("unhashable type: '{}'", key.type_name());
    }
    depth = std::max({depth, key.depth(), value.depth()});
    if (!key.is_text()) spend(made->items.size());
    if (const Value* old = made->find(key)) {
      const_cast<Value&>(*old) = std::move(value);
      continue;
    }
    if (key.is_text()) made->texts.emplace(key.text(), made->items.size());
    made->items.emplace_back(std::move(key), std::move(value));
  }
  made->depth = checked_depth(depth + 1);
  return Value(std::shared_ptr<const Dict>(std::move(made)));
}

Value Runtime::name_space(std::vector<std::pair<std::string, Value>> attributes) {
  auto made = std::make_shared<Namespace>();
  made->charge = Charge(this, sizeof(Namespace) + attributes.size() * 64);
  made->attributes = std::move(attributes);
  namespaces_.push_back(made);
  return Value(std::move(made));
}

Value Runtime::function(std::string name, std::function<Value(Runtime&, const Arguments&)> call,
                        std::string_view type) {
  spend();
  return Value(std::make_shared<const Callable>(
      Callable{std::move(name), type, std::move(call), Charge(this, sizeof(Callable) + 64)}));
}

void require_defined(const Value& value) {
  if (value.is_undefined()) fail_template("{}", value.missing_message());
}

}  // namespace nibble::jinja
