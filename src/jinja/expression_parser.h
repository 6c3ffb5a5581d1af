// The expressions of a template, with the precedences of Jinja.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "jinja/token_stream.h"

namespace nibble::jinja {

class ExpressionParser : public TokenStream {
 public:
  using TokenStream::TokenStream;

 protected:
  ExprPtr parse_expression(bool with_conditional = true);
  // One expression or, with commas, a tuple; a name in `end` stops it.
  ExprPtr parse_tuple(bool with_conditional = true, std::string_view end = {}, bool in_parentheses = false);
  ExprPtr parse_filters(ExprPtr input, bool begins_with_name);
  std::vector<Argument> parse_arguments();
  int name_number(const std::string& name);
  // Throws for the first unknown filter or test that is not soft.
  void require_all_known() const;
  std::vector<std::string> take_names() { return std::move(names_); }

  // Where Jinja lets an unknown filter or test pass until it is reached: inside conditions, but not in a block in them.
  bool soft_ = false;
  class Soft {
   public:
    Soft(ExpressionParser& parser, bool soft) : parser_(parser), before_(std::exchange(parser.soft_, soft)) {}
    ~Soft() { parser_.soft_ = before_; }
    Soft(const Soft&) = delete;
    Soft& operator=(const Soft&) = delete;

   private:
    ExpressionParser& parser_;
    bool before_;
  };

 private:
  // Parts with a word between them.
  ExprPtr parse_joined(Expr::Kind kind, std::string_view word, ExprPtr (ExpressionParser::*part)());
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filters = true);
  ExprPtr parse_primary();
  ExprPtr parse_postfix(ExprPtr expr);
  ExprPtr parse_postfix_and_filters(ExprPtr expr);
  ExprPtr parse_call(ExprPtr function);
  ExprPtr parse_subscript(ExprPtr object);
  ExprPtr parse_index(ExprPtr object);
  ExprPtr parse_test(ExprPtr input);
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr constant(Value value);
  ExprPtr number();
  std::string dotted_name();
  void require_known(bool known, std::string_view kind, const std::string& name, int line);

  struct Unknown {
    int line = 0;
    std::string message;
  };
  std::vector<Unknown> unknown_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, int> name_numbers_;
};

}  // namespace nibble::jinja
