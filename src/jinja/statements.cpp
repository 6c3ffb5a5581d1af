// The statements of a template: blocks, loops, assignments, macros.
#include <algorithm>
#include <utility>

#include "jinja/builtins.h"
#include "jinja/interpreter.h"
#include "jinja/operators.h"
#include "jinja/python_text.h"

namespace nibble::jinja {

using Kind = Statement::Kind;

namespace {

// Sets a variable for as long as it lives.
template <typename T>
class Restored {
 public:
  Restored(T& variable, T value) : variable_(variable), before_(std::exchange(variable, std::move(value))) {}
  ~Restored() { variable_ = std::move(before_); }
  Restored(const Restored&) = delete;
  Restored& operator=(const Restored&) = delete;

 private:
  T& variable_;
  T before_;
};

}  // namespace

void Interpreter::write(std::string_view text) {
  runtime_.spend_copy(text.size());
  // Capacity grows by doubling.
  output_->charge.grow_to(2 * (output_->text.size() + text.size()));
  output_->text += text;
}

void Interpreter::print(const Value& value) {
  if (value.is_text()) {
    write(value.text());
  } else {
    write(to_text(runtime_, value));
  }
}

Interpreter::Flow Interpreter::run_body(const Body& body) {
  for (const Statement& statement : body) {
    const Flow flow = run_statement(statement);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_scoped(const Body& body) {
  const Restored<ScopePtr> inner(scope_, make_scope(scope_));
  return run_body(body);
}

Interpreter::Flow Interpreter::run_statement(const Statement& statement) {
  runtime_.spend();
  line_ = statement.line;
  switch (statement.kind) {
    case Kind::kText:
      write(statement.text);
      break;
    case Kind::kPrint:
      print(evaluate(*statement.value));
      break;
    case Kind::kIf:
      return run_if(statement);
    case Kind::kFor:
      return run_for(statement);
    case Kind::kSet:
    case Kind::kSetBlock:
      run_set(statement);
      break;
    case Kind::kMacro:
      scope_->set(statement.target.name, make_macro(statement));
      break;
    case Kind::kCallBlock:
      run_call_block(statement);
      break;
    case Kind::kFilterBlock: {
      const Value block = captured(statement.body);
      print(evaluate_filter(*statement.value, &block));
      break;
    }
    case Kind::kWith:
      run_with(statement);
      break;
    case Kind::kScope:
      return run_scoped(statement.body);
    case Kind::kBreak:
      return Flow::kBreak;
    case Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_if(const Statement& statement) {
  for (const Branch& branch : statement.branches) {
    if (!branch.condition || evaluate(*branch.condition).truthy()) return run_body(branch.body);
  }
  return Flow::kNext;
}

Values Interpreter::filtered_elements(const Statement& statement) {
  Values items = elements(runtime_, evaluate(*statement.value));
  if (!statement.condition) return items;
  const Restored<ScopePtr> inner(scope_, make_scope(scope_));
  std::erase_if(items, [&](const Value& item) {
    assign(statement.target, item);
    return !evaluate(*statement.condition).truthy();
  });
  return items;
}

Interpreter::Flow Interpreter::run_for(const Statement& statement) {
  const Value list = runtime_.list(filtered_elements(statement));
  auto loop = std::make_shared<Loop>();
  loop->items = std::shared_ptr<const Sequence>(std::make_shared<const Value>(list), &list.sequence());
  const Values& items = loop->items->items;
  if (items.empty()) return run_scoped(statement.else_body);
  for (std::size_t i = 0; i < items.size(); ++i) {
    runtime_.spend();
    const Restored<ScopePtr> inner(scope_, make_scope(scope_));
    loop->index0 = static_cast<std::int64_t>(i);
    if (loop_name_ >= 0) scope_->set(loop_name_, Value(loop));
    assign(statement.target, items[i]);
    if (run_body(statement.body) == Flow::kBreak) break;
  }
  return Flow::kNext;
}

void Interpreter::assign(const Target& target, const Value& value) {
  if (target.is_tuple) {
    const Values items = elements(runtime_, value);
    if (items.size() < target.parts.size()) {
      fail_template("not enough values to unpack (expected {}, got {})", target.parts.size(), items.size());
    }
    if (items.size() > target.parts.size()) {
      fail_template("too many values to unpack (expected {})", target.parts.size());
    }
    for (std::size_t i = 0; i < items.size(); ++i) assign(target.parts[i], items[i]);
    return;
  }
  if (target.attribute.empty()) return scope_->set(target.name, value);
  const std::string& name = ast_.names[static_cast<std::size_t>(target.name)];
  Expr variable;
  variable.name = target.name;
  variable.text = name;
  const Value object = evaluate_name(variable);
  if (!object.is_namespace()) fail_template("cannot assign attribute on non-namespace object");
  check_attribute_name(target.attribute);
  Namespace& space = object.name_space();
  if (Value* old = space.find(target.attribute)) {
    *old = value;
  } else {
    space.attributes.emplace_back(target.attribute, value);
  }
}

void Interpreter::run_set(const Statement& statement) {
  if (statement.kind == Kind::kSet) return assign(statement.target, evaluate(*statement.value));
  Value block = captured(statement.body);
  if (statement.value) block = evaluate_filter(*statement.value, &block);
  assign(statement.target, block);
}

void Interpreter::run_with(const Statement& statement) {
  std::vector<std::pair<int, Value>> values;
  for (const Parameter& parameter : statement.parameters) {
    values.emplace_back(parameter.name, evaluate(*parameter.fallback));
  }
  const Restored<ScopePtr> inner(scope_, make_scope(scope_));
  for (auto& [name, value] : values) scope_->set(name, std::move(value));
  run_body(statement.body);
}

Value Interpreter::captured(const Body& body) {
  Output output;
  output.charge = Charge(&runtime_, 0);
  {
    const Restored<Output*> into(output_, &output);
    run_scoped(body);
  }
  return runtime_.text(std::move(output.text));
}

void Interpreter::run_call_block(const Statement& statement) {
  const Value caller = make_macro(statement);
  print(evaluate_call(*statement.value, &caller));
}

Value Interpreter::make_macro(const Statement& statement) {
  for (ScopePtr scope = scope_; scope != nullptr && !scope->kept; scope = scope->parent) {
    scope->kept = true;
    kept_.push_back(scope);
  }
  // Not an owner: kept_ is, until the end.
  const std::weak_ptr<Scope> weak = scope_;
  const std::string name = statement.kind == Kind::kCallBlock ? "caller" : statement.text;
  return runtime_.function(
      name,
      [this, &statement, weak](Runtime&, const Arguments& arguments) {
        return call_macro(statement, weak.lock(), arguments);
      },
      "Macro");
}

Value Interpreter::call_macro(const Statement& statement, const ScopePtr& scope, const Arguments& arguments) {
  const int line = line_;
  Output output;
  output.charge = Charge(&runtime_, 0);
  {
    const Restored<ScopePtr> inner(scope_, make_scope(scope));
    const Restored<Output*> into(output_, &output);
    bind_parameters(statement, arguments);
    run_body(statement.body);
  }
  line_ = line;
  return runtime_.text(std::move(output.text));
}

void Interpreter::bind_parameters(const Statement& statement, const Arguments& arguments) {
  const std::string name = statement.kind == Kind::kCallBlock ? "caller" : statement.text;
  const std::vector<Parameter>& parameters = statement.parameters;
  std::vector<std::pair<Value, Value>> others;
  for (const auto& [key, value] : arguments.named) {
    if (key == "caller" && caller_name_ >= 0) {
      scope_->set(caller_name_, value);
    } else if (std::ranges::find(parameters, key, &Parameter::text) == parameters.end()) {
      if (kwargs_name_ < 0) fail_template("macro {} takes no keyword argument {}", repr_text(name), repr_text(key));
      others.emplace_back(runtime_.text(key), value);
    }
  }
  if (arguments.positional.size() > parameters.size() && varargs_name_ < 0) {
    fail_template("macro {} takes not more than {} argument(s)", repr_text(name), parameters.size());
  }
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& parameter = parameters[i];
    const Value* given = i < arguments.positional.size() ? &arguments.positional[i] : arguments.find(parameter.text);
    if (given != nullptr) {
      scope_->set(parameter.name, *given);
    } else if (parameter.fallback) {
      scope_->set(parameter.name, evaluate(*parameter.fallback));
    } else {
      scope_->set(parameter.name,
                  Value::undefined(format_text("parameter {} was not provided", repr_text(parameter.text))));
    }
  }
  if (varargs_name_ >= 0) {
    const std::size_t n = std::min(parameters.size(), arguments.positional.size());
    scope_->set(varargs_name_, runtime_.tuple(Values(arguments.positional.begin() + static_cast<std::ptrdiff_t>(n),
                                                     arguments.positional.end())));
  }
  if (kwargs_name_ >= 0) scope_->set(kwargs_name_, runtime_.dict(std::move(others)));
}

}  // namespace nibble::jinja
