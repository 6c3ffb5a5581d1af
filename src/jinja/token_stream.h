// The tokens of a template with a place in them, and the making of nodes: what both halves of the parser share.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <vector>

#include "jinja/ast.h"
#include "jinja/lexer.h"
#include "jinja/runtime.h"

namespace nibble::jinja {

class TokenStream {
 public:
  TokenStream(std::vector<Token> tokens, const Limits& limits) : tokens_(std::move(tokens)), limits_(limits) {}

  const Token& peek(std::size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  Token next() {
    Token token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  int line() const { return peek().line; }

  bool is(Token::Kind kind) const { return peek().kind == kind; }
  bool is_operator(std::string_view text, std::size_t ahead = 0) const {
    return peek(ahead).kind == Token::Kind::kOperator && peek(ahead).text == text;
  }
  bool is_name(std::string_view text, std::size_t ahead = 0) const {
    return peek(ahead).kind == Token::Kind::kName && peek(ahead).text == text;
  }
  bool skip_operator(std::string_view text) { return is_operator(text) && (next(), true); }
  bool skip_name(std::string_view text) { return is_name(text) && (next(), true); }
  void expect_operator(std::string_view text) {
    if (!skip_operator(text)) fail_here(format_text("expected token '{}', got {}", text, described()));
  }
  std::string expect_name() {
    if (!is(Token::Kind::kName)) fail_here(format_text("expected token 'name', got {}", described()));
    return next().text;
  }
  void expect_name(std::string_view text) {
    if (!skip_name(text)) fail_here(format_text("expected token '{}', got {}", text, described()));
  }

  std::string described() const {
    switch (peek().kind) {
      case Token::Kind::kEnd:
        return "'end of template'";
      case Token::Kind::kPrintEnd:
        return "'end of print statement'";
      case Token::Kind::kTagEnd:
        return "'end of statement block'";
      case Token::Kind::kText:
        return "'template data / text'";
      default:
        return format_text("'{}'", peek().text);
    }
  }
  [[noreturn]] void fail_here(std::string_view what) const { fail_at(line(), what); }
  [[noreturn]] static void fail_at(int line, std::string_view what) {
    throw Error(ErrorCode::kFormat, std::string(what)).add_context(format_text("line {}", line));
  }

  ExprPtr make(Expr::Kind kind, int line) const {
    auto expr = std::make_unique<Expr>();
    expr->kind = kind;
    expr->line = line;
    return expr;
  }
  // The node has its children now: how deep is it?
  ExprPtr sealed(ExprPtr expr) const {
    int depth = 0;
    for (const ExprPtr& operand : expr->operands) depth = std::max(depth, operand ? operand->depth : 0);
    for (const Argument& argument : expr->arguments) depth = std::max(depth, argument.value->depth);
    expr->depth = depth + 1;
    if (expr->depth > limits_.nesting) fail_at(expr->line, format_text("nested more than {} deep", limits_.nesting));
    return expr;
  }
  template <typename... Operands>
  ExprPtr make(Expr::Kind kind, int line, ExprPtr first, Operands... rest) const {
    ExprPtr expr = make(kind, line);
    expr->operands.push_back(std::move(first));
    (expr->operands.push_back(std::move(rest)), ...);
    return sealed(std::move(expr));
  }

  // Counts how deep the parser itself is.
  class Level {
   public:
    explicit Level(TokenStream& stream) : stream_(stream) {
      if (++stream_.level_ > stream_.limits_.nesting) {
        --stream_.level_;
        stream_.fail_here(format_text("nested more than {} deep", stream_.limits_.nesting));
      }
    }
    ~Level() { --stream_.level_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    TokenStream& stream_;
  };

 private:
  std::vector<Token> tokens_;
  Limits limits_;
  std::size_t at_ = 0;
  int level_ = 0;
};

}  // namespace nibble::jinja
