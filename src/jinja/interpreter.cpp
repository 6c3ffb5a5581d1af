#include "jinja/interpreter.h"

#include <algorithm>

#include "jinja/builtins.h"
#include "jinja/operators.h"
#include "jinja/python_text.h"

namespace nibble::jinja {

using Kind = Expr::Kind;

class Interpreter::Depth {
 public:
  explicit Depth(Interpreter& interpreter) : interpreter_(interpreter) {
    const int limit = interpreter.runtime_.limits().depth;
    if (interpreter_.depth_ >= limit) {
      fail(ErrorCode::kUnsupported, "the chat template nests calls and blocks more than {} deep", limit);
    }
    ++interpreter_.depth_;
  }
  ~Depth() { --interpreter_.depth_; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;

 private:
  Interpreter& interpreter_;
};

Value* Interpreter::Scope::find(int name) {
  const auto found = std::ranges::find(variables, name, &std::pair<int, Value>::first);
  return found == variables.end() ? nullptr : &found->second;
}

void Interpreter::Scope::set(int name, Value value) {
  if (Value* old = find(name)) {
    *old = std::move(value);
  } else {
    variables.emplace_back(name, std::move(value));
  }
}

Interpreter::Interpreter(const Ast& ast, Runtime& runtime) : ast_(ast), runtime_(runtime) {
  const auto number = [&](std::string_view name) {
    const auto found = std::ranges::find(ast.names, name);
    return found == ast.names.end() ? -1 : static_cast<int>(found - ast.names.begin());
  };
  caller_name_ = number("caller");
  loop_name_ = number("loop");
  varargs_name_ = number("varargs");
  kwargs_name_ = number("kwargs");
}

Interpreter::~Interpreter() {
  for (const ScopePtr& scope : kept_) scope->variables.clear();
}

Value Interpreter::from_json(const json::Value& value) {
  if (value.is_null()) return kNone;
  if (value.is_bool()) return Value(value.as_bool());
  if (value.is_int()) return Value(value.as_int());
  if (value.is_number()) return Value(value.as_number());
  if (value.is_string()) return runtime_.text(value.as_string());
  if (value.is_array()) {
    Values items;
    for (const json::Value& item : value.as_array()) items.push_back(from_json(item));
    return runtime_.list(std::move(items));
  }
  std::vector<std::pair<Value, Value>> items;
  for (const auto& [key, item] : value.as_object()) items.emplace_back(runtime_.text(key), from_json(item));
  return runtime_.dict(std::move(items));
}

std::string Interpreter::run(const json::Value& variables) {
  const ScopePtr globals = make_scope(nullptr);
  const auto define = [&](const std::string& name, auto&& make) {
    const auto found = std::ranges::find(ast_.names, name);
    if (found != ast_.names.end()) globals->set(static_cast<int>(found - ast_.names.begin()), make());
  };
  for (auto& [name, function] : global_functions(runtime_)) define(name, [&result = function] { return result; });
  for (const auto& [name, value] : variables.as_object())
    define(name, [this, &given = value] { return from_json(given); });
  scope_ = make_scope(globals);
  Output output;
  output.charge = Charge(&runtime_, 0);
  output_ = &output;
  run_body(ast_.body);
  return std::move(output.text);
}

Interpreter::ScopePtr Interpreter::make_scope(ScopePtr parent) {
  auto scope = std::make_shared<Scope>();
  scope->parent = std::move(parent);
  scope->charge = Charge(&runtime_, sizeof(Scope) + 64);
  return scope;
}

Value Interpreter::evaluate_name(const Expr& expr) {
  for (Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
    if (const Value* value = scope->find(expr.name)) return *value;
  }
  return Value::undefined(format_text("{} is undefined", repr_text(expr.text)));
}

Value Interpreter::evaluate(const Expr& expr) {
  const Depth depth(*this);
  runtime_.spend();
  line_ = expr.line;
  switch (expr.kind) {
    case Kind::kConstant:
      return expr.constant;
    case Kind::kName:
      return evaluate_name(expr);
    case Kind::kList:
    case Kind::kTuple:
      return evaluate_list(expr);
    case Kind::kDict:
      return evaluate_dict(expr);
    case Kind::kNot:
      return Value(!evaluate(*expr.operands[0]).truthy());
    case Kind::kNegate:
      return negate(evaluate(*expr.operands[0]));
    case Kind::kPositive:
      return arithmetic(runtime_, Operator::kAdd, Value(std::int64_t{0}), evaluate(*expr.operands[0]));
    case Kind::kArithmetic:
      return evaluate_arithmetic(expr);
    case Kind::kConcat:
      return evaluate_concat(expr);
    case Kind::kCompare:
      return evaluate_compare(expr);
    case Kind::kAnd:
    case Kind::kOr:
      return evaluate_logic(expr);
    case Kind::kConditional:
      return evaluate_conditional(expr);
    case Kind::kAttribute:
      return attribute(runtime_, evaluate(*expr.operands[0]), expr.text);
    case Kind::kSubscript: {
      const Value object = evaluate(*expr.operands[0]);
      return subscript(runtime_, object, evaluate(*expr.operands[1]));
    }
    case Kind::kSlice:
      return evaluate_slice(expr);
    case Kind::kCall:
      return evaluate_call(expr);
    case Kind::kFilter:
      return evaluate_filter(expr);
    case Kind::kTest:
      return evaluate_test(expr);
  }
  return {};
}

Value Interpreter::evaluate_list(const Expr& expr) {
  Values items;
  for (const ExprPtr& operand : expr.operands) items.push_back(evaluate(*operand));
  return runtime_.list(std::move(items), expr.kind == Kind::kTuple ? Sequence::Kind::kTuple : Sequence::Kind::kList);
}

Value Interpreter::evaluate_dict(const Expr& expr) {
  std::vector<std::pair<Value, Value>> items;
  for (std::size_t i = 0; i < expr.operands.size(); i += 2) {
    Value key = evaluate(*expr.operands[i]);
    items.emplace_back(std::move(key), evaluate(*expr.operands[i + 1]));
  }
  return runtime_.dict(std::move(items));
}

Value Interpreter::evaluate_arithmetic(const Expr& expr) {
  Value value = evaluate(*expr.operands[0]);
  for (std::size_t i = 0; i < expr.operators.size(); ++i) {
    const Value other = evaluate(*expr.operands[i + 1]);
    line_ = expr.line;
    value = arithmetic(runtime_, expr.operators[i], value, other);
  }
  return value;
}

Value Interpreter::evaluate_concat(const Expr& expr) {
  std::string text;
  for (const ExprPtr& operand : expr.operands) {
    text += to_text(runtime_, evaluate(*operand));
    runtime_.check_room(text.size());
  }
  return runtime_.text(std::move(text));
}

Value Interpreter::evaluate_compare(const Expr& expr) {
  Value left = evaluate(*expr.operands[0]);
  for (std::size_t i = 0; i < expr.operators.size(); ++i) {
    Value right = evaluate(*expr.operands[i + 1]);
    line_ = expr.line;
    if (!compare(runtime_, expr.operators[i], left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::evaluate_logic(const Expr& expr) {
  Value value;
  for (const ExprPtr& operand : expr.operands) {
    value = evaluate(*operand);
    if (value.truthy() == (expr.kind == Kind::kOr)) break;
  }
  return value;
}

Value Interpreter::evaluate_conditional(const Expr& expr) {
  if (evaluate(*expr.operands[0]).truthy()) return evaluate(*expr.operands[1]);
  if (expr.operands[2]) return evaluate(*expr.operands[2]);
  return Value::undefined(format_text(
      "the inline if-expression on line {} evaluated to false and no else section was defined.", expr.line));
}

Value Interpreter::evaluate_slice(const Expr& expr) {
  Value parts[4] = {Value(), kNone, kNone, kNone};
  for (std::size_t i = 0; i < 4; ++i) {
    if (expr.operands[i]) parts[i] = evaluate(*expr.operands[i]);
  }
  return slice(runtime_, parts[0], parts[1], parts[2], parts[3]);
}

Arguments Interpreter::evaluate_arguments(const std::vector<Argument>& arguments) {
  Arguments out;
  for (const Argument& argument : arguments) {
    Value value = evaluate(*argument.value);
    switch (argument.kind) {
      case Argument::Kind::kPositional:
        out.positional.push_back(std::move(value));
        break;
      case Argument::Kind::kNamed:
        out.named.emplace_back(argument.name, std::move(value));
        break;
      case Argument::Kind::kUnpackList:
        for (Value& item : elements(runtime_, value)) out.positional.push_back(std::move(item));
        break;
      case Argument::Kind::kUnpackDict:
        if (!value.is_dict()) fail_template("argument after ** must be a mapping, not {}", value.type_name());
        for (const auto& [key, item] : value.dict().items) {
          if (!key.is_text()) fail_template("keywords must be strings");
          out.named.emplace_back(key.text(), item);
        }
    }
  }
  return out;
}

Value Interpreter::evaluate_call(const Expr& expr, const Value* caller) {
  const Value function = evaluate(*expr.operands[0]);
  require_defined(function);
  if (!function.is_callable()) fail_template("'{}' object is not callable", function.type_name());
  Arguments arguments = evaluate_arguments(expr.arguments);
  if (caller != nullptr) arguments.named.emplace_back("caller", *caller);
  line_ = expr.line;
  return function.callable().call(runtime_, arguments);
}

Value Interpreter::evaluate_filter(const Expr& expr, const Value* block) {
  Value input;
  if (expr.operands[0] == nullptr) {
    input = *block;
  } else if (block != nullptr) {
    input = evaluate_filter(*expr.operands[0], block);
  } else {
    input = evaluate(*expr.operands[0]);
  }
  const Arguments arguments = evaluate_arguments(expr.arguments);
  line_ = expr.line;
  if (expr.filter == nullptr) fail_template("No filter named {} found.", repr_text(expr.text));
  return expr.filter(runtime_, input, arguments);
}

Value Interpreter::evaluate_test(const Expr& expr) {
  const Value input = evaluate(*expr.operands[0]);
  const Arguments arguments = evaluate_arguments(expr.arguments);
  line_ = expr.line;
  if (expr.test == nullptr) fail_template("No test named {} found.", repr_text(expr.text));
  return Value(expr.test(runtime_, input, arguments));
}

}  // namespace nibble::jinja
