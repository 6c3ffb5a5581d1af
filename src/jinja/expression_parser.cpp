#include "jinja/expression_parser.h"

#include <charconv>

#include "jinja/builtins.h"
#include "jinja/python_text.h"

namespace nibble::jinja {

using Kind = Expr::Kind;

int ExpressionParser::name_number(const std::string& name) {
  const auto [found, is_new] = name_numbers_.emplace(name, static_cast<int>(names_.size()));
  if (is_new) names_.push_back(name);
  return found->second;
}

ExprPtr ExpressionParser::constant(Value value) {
  ExprPtr expr = make(Kind::kConstant, line());
  expr->constant = std::move(value);
  return expr;
}

ExprPtr ExpressionParser::parse_expression(bool with_conditional) {
  const Level level(*this);
  const std::size_t n_unknown = unknown_.size();
  ExprPtr value = parse_or();
  while (with_conditional && is_name("if")) {
    unknown_.resize(n_unknown);  // what stands before `if` is conditional too
    const int at = next().line;
    const Soft soft(*this, true);
    ExprPtr condition = parse_or();
    ExprPtr other = skip_name("else") ? parse_expression() : nullptr;
    value = make(Kind::kConditional, at, std::move(condition), std::move(value), std::move(other));
  }
  return value;
}

ExprPtr ExpressionParser::parse_joined(Kind kind, std::string_view word, ExprPtr (ExpressionParser::*part)()) {
  ExprPtr first = (this->*part)();
  if (!is_name(word)) return first;
  ExprPtr expr = make(kind, first->line);
  expr->operands.push_back(std::move(first));
  while (skip_name(word)) expr->operands.push_back((this->*part)());
  return sealed(std::move(expr));
}

ExprPtr ExpressionParser::parse_or() { return parse_joined(Kind::kOr, "or", &ExpressionParser::parse_and); }
ExprPtr ExpressionParser::parse_and() { return parse_joined(Kind::kAnd, "and", &ExpressionParser::parse_not); }

ExprPtr ExpressionParser::parse_not() {
  const int at = line();
  if (!skip_name("not")) return parse_compare();
  const Level level(*this);
  return make(Kind::kNot, at, parse_not());
}

ExprPtr ExpressionParser::parse_compare() {
  constexpr std::pair<std::string_view, Operator> kOperators[] = {{"==", Operator::kEq}, {"!=", Operator::kNe},
                                                                  {"<", Operator::kLt},  {"<=", Operator::kLe},
                                                                  {">", Operator::kGt},  {">=", Operator::kGe}};
  ExprPtr first = parse_sum();
  ExprPtr expr;
  for (;;) {
    Operator op{};
    const auto* found = std::ranges::find_if(kOperators, [&](const auto& pair) { return is_operator(pair.first); });
    if (found != std::end(kOperators)) {
      op = found->second;
    } else if (is_name("in")) {
      op = Operator::kIn;
    } else if (is_name("not") && is_name("in", 1)) {
      next();
      op = Operator::kNotIn;
    } else {
      return expr ? sealed(std::move(expr)) : std::move(first);
    }
    next();
    if (!expr) {
      expr = make(Kind::kCompare, first->line);
      expr->operands.push_back(std::move(first));
    }
    expr->operators.push_back(op);
    expr->operands.push_back(parse_sum());
  }
}

ExprPtr ExpressionParser::parse_sum() {
  ExprPtr first = parse_concat();
  if (!is_operator("+") && !is_operator("-")) return first;
  ExprPtr expr = make(Kind::kArithmetic, first->line);
  expr->operands.push_back(std::move(first));
  while (is_operator("+") || is_operator("-")) {
    expr->operators.push_back(next().text == "+" ? Operator::kAdd : Operator::kSub);
    expr->operands.push_back(parse_concat());
  }
  return sealed(std::move(expr));
}

ExprPtr ExpressionParser::parse_concat() {
  ExprPtr first = parse_product();
  if (!is_operator("~")) return first;
  ExprPtr expr = make(Kind::kConcat, first->line);
  expr->operands.push_back(std::move(first));
  while (skip_operator("~")) expr->operands.push_back(parse_product());
  return sealed(std::move(expr));
}

ExprPtr ExpressionParser::parse_product() {
  constexpr std::pair<std::string_view, Operator> kOperators[] = {
      {"*", Operator::kMul}, {"/", Operator::kDiv}, {"//", Operator::kFloorDiv}, {"%", Operator::kMod}};
  ExprPtr first = parse_power();
  ExprPtr expr;
  for (;;) {
    const auto* found = std::ranges::find_if(kOperators, [&](const auto& pair) { return is_operator(pair.first); });
    if (found == std::end(kOperators)) return expr ? sealed(std::move(expr)) : std::move(first);
    if (!expr) {
      expr = make(Kind::kArithmetic, first->line);
      expr->operands.push_back(std::move(first));
    }
    next();
    expr->operators.push_back(found->second);
    expr->operands.push_back(parse_power());
  }
}

ExprPtr ExpressionParser::parse_power() {
  ExprPtr first = parse_unary();
  if (!is_operator("**")) return first;
  ExprPtr expr = make(Kind::kArithmetic, first->line);
  expr->operands.push_back(std::move(first));
  while (skip_operator("**")) {
    expr->operators.push_back(Operator::kPow);
    expr->operands.push_back(parse_unary());
  }
  return sealed(std::move(expr));
}

ExprPtr ExpressionParser::parse_unary(bool with_filters) {
  const Level level(*this);
  const int at = line();
  ExprPtr expr;
  if (skip_operator("-")) {
    expr = make(Kind::kNegate, at, parse_unary(false));
  } else if (skip_operator("+")) {
    expr = make(Kind::kPositive, at, parse_unary(false));
  } else {
    expr = parse_primary();
  }
  expr = parse_postfix(std::move(expr));
  return with_filters ? parse_postfix_and_filters(std::move(expr)) : std::move(expr);
}

ExprPtr ExpressionParser::number() {
  const std::string text = peek().text;
  const char* end = text.data() + text.size();
  if (is(Token::Kind::kFloat)) {
    double value = 0;
    std::from_chars(text.data(), end, value);
    return constant(Value(value));
  }
  const char mark = text.size() > 2 ? text[1] : '0';
  const int base = mark == 'x' || mark == 'X'   ? 16
                   : mark == 'o' || mark == 'O' ? 8
                   : mark == 'b' || mark == 'B' ? 2
                                                : 10;
  std::int64_t value = 0;
  const auto read = std::from_chars(text.data() + (base == 10 ? 0 : 2), end, value, base);
  if (read.ec != std::errc{} || read.ptr != end) fail_here(format_text("'{}' is no integer of 64 bits", text));
  return constant(Value(value));
}

ExprPtr ExpressionParser::parse_primary() {
  const Token& token = peek();
  ExprPtr expr;
  switch (token.kind) {
    case Token::Kind::kName:
      if (token.text == "true" || token.text == "True" || token.text == "false" || token.text == "False") {
        expr = constant(Value(token.text[0] == 't' || token.text[0] == 'T'));
      } else if (token.text == "none" || token.text == "None") {
        expr = constant(kNone);
      } else {
        expr = make(Kind::kName, token.line);
        expr->name = name_number(token.text);
        expr->text = token.text;
      }
      next();
      return expr;
    case Token::Kind::kString: {
      const int at = line();
      std::string text;
      while (is(Token::Kind::kString)) text += next().text;  // neighbours are one
      expr = make(Kind::kConstant, at);
      expr->constant = Value(std::make_shared<const Text>(std::move(text)));
      return expr;
    }
    case Token::Kind::kInteger:
    case Token::Kind::kFloat:
      expr = number();
      next();
      return expr;
    default:
      break;
  }
  if (is_operator("[")) return parse_list();
  if (is_operator("{")) return parse_dict();
  if (!skip_operator("(")) fail_here(format_text("unexpected {}", described()));
  expr = parse_tuple(true, {}, true);
  expect_operator(")");
  return expr;
}

ExprPtr ExpressionParser::parse_list() {
  ExprPtr expr = make(Kind::kList, line());
  expect_operator("[");
  while (!is_operator("]")) {
    if (!expr->operands.empty()) expect_operator(",");
    if (is_operator("]")) break;
    expr->operands.push_back(parse_expression());
  }
  next();
  return sealed(std::move(expr));
}

ExprPtr ExpressionParser::parse_dict() {
  ExprPtr expr = make(Kind::kDict, line());
  expect_operator("{");
  while (!is_operator("}")) {
    if (!expr->operands.empty()) expect_operator(",");
    if (is_operator("}")) break;
    expr->operands.push_back(parse_expression());
    expect_operator(":");
    expr->operands.push_back(parse_expression());
  }
  next();
  return sealed(std::move(expr));
}

ExprPtr ExpressionParser::parse_tuple(bool with_conditional, std::string_view end, bool in_parentheses) {
  const int at = line();
  const auto ends = [&] {
    return is(Token::Kind::kPrintEnd) || is(Token::Kind::kTagEnd) || is_operator(")") || (!end.empty() && is_name(end));
  };
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (!ends()) {
    items.push_back(parse_expression(with_conditional));
    if (!skip_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !items.empty()) return std::move(items[0]);
  if (items.empty() && !in_parentheses) fail_here(format_text("Expected an expression, got {}", described()));
  ExprPtr expr = make(Kind::kTuple, at);
  expr->operands = std::move(items);
  return sealed(std::move(expr));
}

ExprPtr ExpressionParser::parse_postfix(ExprPtr expr) {
  for (;;) {
    if (is_operator(".") || is_operator("[")) {
      expr = parse_subscript(std::move(expr));
    } else if (is_operator("(")) {
      expr = parse_call(std::move(expr));
    } else {
      return expr;
    }
  }
}

ExprPtr ExpressionParser::parse_postfix_and_filters(ExprPtr expr) {
  for (;;) {
    if (is_operator("|")) {
      expr = parse_filters(std::move(expr), false);
    } else if (is_name("is")) {
      expr = parse_test(std::move(expr));
    } else if (is_operator("(")) {
      expr = parse_call(std::move(expr));
    } else {
      return expr;
    }
  }
}

ExprPtr ExpressionParser::parse_call(ExprPtr function) {
  ExprPtr call = make(Kind::kCall, line());
  call->operands.push_back(std::move(function));
  call->arguments = parse_arguments();
  return sealed(std::move(call));
}

ExprPtr ExpressionParser::parse_subscript(ExprPtr object) {
  const int at = line();
  if (skip_operator("[")) {
    ExprPtr expr = parse_index(std::move(object));
    expect_operator("]");
    return expr;
  }
  next();
  if (is(Token::Kind::kName)) {
    ExprPtr expr = make(Kind::kAttribute, at, std::move(object));
    expr->text = next().text;
    return expr;
  }
  if (!is(Token::Kind::kInteger)) fail_here("expected name or number");
  ExprPtr index = number();
  next();
  return make(Kind::kSubscript, at, std::move(object), std::move(index));
}

ExprPtr ExpressionParser::parse_index(ExprPtr object) {
  const int at = line();
  ExprPtr start = is_operator(":") ? nullptr : parse_expression();
  if (is_operator(",")) fail_here("several subscripts");
  if (!skip_operator(":")) return make(Kind::kSubscript, at, std::move(object), std::move(start));
  const auto part = [&] { return is_operator("]") || is_operator(":") ? nullptr : parse_expression(); };
  ExprPtr stop = part();
  ExprPtr step = skip_operator(":") ? part() : nullptr;
  return make(Kind::kSlice, at, std::move(object), std::move(start), std::move(stop), std::move(step));
}

std::vector<Argument> ExpressionParser::parse_arguments() {
  expect_operator("(");
  std::vector<Argument> arguments;
  while (!is_operator(")")) {
    if (!arguments.empty()) expect_operator(",");
    if (is_operator(")")) break;
    Argument argument;
    if (skip_operator("*")) {
      argument.kind = Argument::Kind::kUnpackList;
    } else if (skip_operator("**")) {
      argument.kind = Argument::Kind::kUnpackDict;
    } else if (is(Token::Kind::kName) && is_operator("=", 1)) {
      argument.kind = Argument::Kind::kNamed;
      argument.name = next().text;
      next();
    } else if (!arguments.empty() && arguments.back().kind != Argument::Kind::kPositional) {
      fail_here("invalid syntax for function call expression");
    }
    argument.value = parse_expression();
    arguments.push_back(std::move(argument));
  }
  next();
  return arguments;
}

std::string ExpressionParser::dotted_name() {
  std::string name = expect_name();
  while (skip_operator(".")) name += "." + expect_name();
  return name;
}

void ExpressionParser::require_known(bool known, std::string_view kind, const std::string& name, int line) {
  if (!known && !soft_) unknown_.push_back({line, format_text("No {} named {}.", kind, repr_text(name))});
}

void ExpressionParser::require_all_known() const {
  if (!unknown_.empty()) fail_at(unknown_[0].line, unknown_[0].message);
}

ExprPtr ExpressionParser::parse_filters(ExprPtr input, bool begins_with_name) {
  while (begins_with_name || is_operator("|")) {
    if (!begins_with_name) next();
    begins_with_name = false;
    ExprPtr expr = make(Kind::kFilter, line());
    expr->text = dotted_name();
    expr->filter = find_filter(expr->text);
    require_known(expr->filter != nullptr, "filter", expr->text, expr->line);
    expr->operands.push_back(std::move(input));
    if (is_operator("(")) expr->arguments = parse_arguments();
    input = sealed(std::move(expr));
  }
  return input;
}

ExprPtr ExpressionParser::parse_test(ExprPtr input) {
  const int at = line();
  expect_name("is");
  const bool negated = skip_name("not");
  ExprPtr expr = make(Kind::kTest, at);
  expr->text = dotted_name();
  expr->test = find_test(expr->text);
  require_known(expr->test != nullptr, "test", expr->text, at);
  expr->operands.push_back(std::move(input));
  const bool ends = is_name("else") || is_name("or") || is_name("and");
  const bool begins = is(Token::Kind::kName) || is(Token::Kind::kString) || is(Token::Kind::kInteger) ||
                      is(Token::Kind::kFloat) || is_operator("[") || is_operator("{");
  if (is_operator("(")) {
    expr->arguments = parse_arguments();
  } else if (begins && !ends) {
    if (is_name("is")) fail_here("You cannot chain multiple tests with is");
    Argument argument;
    argument.value = parse_postfix(parse_primary());
    expr->arguments.push_back(std::move(argument));
  }
  expr = sealed(std::move(expr));
  return negated ? make(Kind::kNot, at, std::move(expr)) : std::move(expr);
}

}  // namespace nibble::jinja
