#include "jinja/parser.h"

#include "jinja/expression_parser.h"

namespace nibble::jinja {

namespace {

using Kind = Statement::Kind;

class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Ast run() {
    Ast ast;
    ast.body = parse_body({});
    if (is(Token::Kind::kTagBegin)) {
      next();
      fail_here(format_text("Encountered unknown tag {}.", described()));
    }
    require_all_known();
    ast.names = take_names();
    return ast;
  }

 private:
  Statement begin(Kind kind) const {
    Statement statement;
    statement.kind = kind;
    statement.line = line();
    return statement;
  }

  // Statements up to a tag that begins with one of `ends`; its name is then the next token.
  Body parse_body(std::initializer_list<std::string_view> ends) {
    const Level level(*this);
    Body body;
    while (!is(Token::Kind::kEnd)) {
      if (is(Token::Kind::kText)) {
        Statement statement = begin(Kind::kText);
        statement.text = next().text;
        body.push_back(std::move(statement));
      } else if (is(Token::Kind::kPrintBegin)) {
        next();
        Statement statement = begin(Kind::kPrint);
        statement.value = parse_tuple();
        if (!is(Token::Kind::kPrintEnd)) fail_expected_end("end of print statement");
        next();
        body.push_back(std::move(statement));
      } else {
        if (std::ranges::any_of(ends, [&](std::string_view end) { return is_name(end, 1); })) break;
        if (ends.size() == 0 && peek(1).kind == Token::Kind::kName && peek(1).text.starts_with("end")) break;
        next();
        body.push_back(parse_statement());
      }
    }
    if (ends.size() > 0 && is(Token::Kind::kEnd)) {
      fail_here(format_text("Unexpected end of template: '{}' is missing", *(ends.end() - 1)));
    }
    return body;
  }

  [[noreturn]] void fail_expected_end(std::string_view what) {
    fail_here(format_text("expected token '{}', got {}", what, described()));
  }
  void end_tag() {
    if (!is(Token::Kind::kTagEnd)) fail_expected_end("end of statement block");
    next();
  }
  // After the body: `{% name %}`.
  void close(std::string_view name) {
    next();
    expect_name(name);
    end_tag();
  }

  Statement parse_statement() {
    const Level level(*this);
    const int at = line();
    if (!is(Token::Kind::kName)) fail_here("tag name expected");
    const std::string tag = next().text;
    Statement statement;
    statement.line = at;
    if (tag == "if") {
      parse_if(statement);
    } else if (tag == "for") {
      parse_for(statement);
    } else if (tag == "set") {
      parse_set(statement);
    } else if (tag == "macro" || tag == "call") {
      parse_macro(statement, tag == "call");
    } else if (tag == "filter") {
      statement.kind = Kind::kFilterBlock;
      statement.value = parse_filters(nullptr, true);
      end_tag();
      parse_block(statement, "endfilter");
    } else if (tag == "with") {
      parse_with(statement);
    } else if (tag == "generation") {
      statement.kind = Kind::kScope;
      end_tag();
      parse_block(statement, "endgeneration");
    } else if (tag == "break" || tag == "continue") {
      if (loops_ == 0) fail_at(at, format_text("'{}' outside of a loop", tag));
      statement.kind = tag == "break" ? Kind::kBreak : Kind::kContinue;
      end_tag();
    } else {
      fail_at(at, format_text("Encountered unknown tag '{}'.", tag));
    }
    return statement;
  }

  void parse_block(Statement& statement, std::string_view end) {
    const Soft hard(*this, false);
    statement.body = parse_body({end});
    close(end);
  }

  void parse_if(Statement& statement) {
    statement.kind = Kind::kIf;
    const Soft soft(*this, true);
    statement.branches.push_back({.condition = parse_tuple(false), .body = {}});
    end_tag();
    for (;;) {
      statement.branches.back().body = parse_body({"elif", "else", "endif"});
      next();
      if (skip_name("elif")) {
        statement.branches.push_back({.condition = parse_tuple(false), .body = {}});
        end_tag();
      } else if (skip_name("else")) {
        end_tag();
        statement.branches.push_back({.condition = nullptr, .body = parse_body({"endif"})});
        return close("endif");
      } else {
        expect_name("endif");
        return end_tag();
      }
    }
  }

  void parse_for(Statement& statement) {
    statement.kind = Kind::kFor;
    statement.target = parse_target("in", false);
    expect_name("in");
    statement.value = parse_tuple(false, "recursive");
    if (skip_name("if")) statement.condition = parse_expression();
    if (is_name("recursive")) fail_here("recursive loops are not supported");
    end_tag();
    const Soft hard(*this, false);
    ++loops_;
    statement.body = parse_body({"else", "endfor"});
    --loops_;
    next();
    if (skip_name("else")) {
      end_tag();
      statement.else_body = parse_body({"endfor"});
      next();
    }
    expect_name("endfor");
    end_tag();
  }

  void parse_set(Statement& statement) {
    statement.target = parse_target({}, true);
    if (skip_operator("=")) {
      statement.kind = Kind::kSet;
      statement.value = parse_tuple();
      return end_tag();
    }
    statement.kind = Kind::kSetBlock;
    if (is_operator("|")) statement.value = parse_filters(nullptr, false);
    end_tag();
    parse_block(statement, "endset");
  }

  void parse_macro(Statement& statement, bool is_call) {
    statement.kind = is_call ? Kind::kCallBlock : Kind::kMacro;
    if (!is_call) {
      statement.text = expect_name();
      statement.target.name = name_number(statement.text);
    }
    if (is_operator("(")) {
      parse_parameters(statement);
    } else if (!is_call) {
      expect_operator("(");
    }
    if (is_call) {
      statement.value = parse_expression();
      if (statement.value->kind != Expr::Kind::kCall) fail_at(statement.line, "expected call");
    }
    end_tag();
    const int loops = std::exchange(loops_, 0);
    parse_block(statement, is_call ? "endcall" : "endmacro");
    loops_ = loops;
  }

  void parse_parameters(Statement& statement) {
    expect_operator("(");
    while (!is_operator(")")) {
      if (!statement.parameters.empty()) expect_operator(",");
      if (is_operator(")")) break;
      Parameter parameter;
      parameter.text = expect_name();
      parameter.name = name_number(parameter.text);
      if (skip_operator("=")) {
        parameter.fallback = parse_expression();
      } else if (!statement.parameters.empty() && statement.parameters.back().fallback) {
        fail_here("non-default argument follows default argument");
      }
      statement.parameters.push_back(std::move(parameter));
    }
    next();
  }

  void parse_with(Statement& statement) {
    statement.kind = Kind::kWith;
    while (!is(Token::Kind::kTagEnd)) {
      if (!statement.parameters.empty()) expect_operator(",");
      Parameter parameter;
      parameter.text = expect_name();
      parameter.name = name_number(parameter.text);
      expect_operator("=");
      parameter.fallback = parse_expression();
      statement.parameters.push_back(std::move(parameter));
    }
    end_tag();
    parse_block(statement, "endwith");
  }

  Target parse_one_target(bool with_attribute) {
    const Level level(*this);
    Target target;
    if (skip_operator("(")) {
      target = parse_target(")", false);
      expect_operator(")");
      return target;
    }
    const int at = line();
    const std::string name = expect_name();
    for (const char* word : {"true", "false", "none", "True", "False", "None"}) {
      if (name == word) fail_at(at, format_text("can't assign to '{}'", name));
    }
    target.name = name_number(name);
    if (with_attribute && skip_operator(".")) target.attribute = expect_name();
    return target;
  }

  // One target or several with commas, until the name `end` or what cannot go on.
  Target parse_target(std::string_view end, bool with_attribute) {
    Target first = parse_one_target(with_attribute);
    if (!is_operator(",")) return first;
    Target tuple;
    tuple.is_tuple = true;
    tuple.parts.push_back(std::move(first));
    while (skip_operator(",")) {
      if (is_operator("=") || is_operator(")") || (!end.empty() && is_name(end))) break;
      tuple.parts.push_back(parse_one_target(with_attribute));
    }
    return tuple;
  }

  int loops_ = 0;
};

}  // namespace

Ast parse(std::string_view source, const Limits& limits) { return Parser(tokenize(source, limits), limits).run(); }

}  // namespace nibble::jinja
