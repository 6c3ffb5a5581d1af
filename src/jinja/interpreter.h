// Runs the tree of a template.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "jinja/ast.h"
#include "jinja/runtime.h"
#include "json/json.h"

namespace nibble::jinja {

class Interpreter {
 public:
  Interpreter(const Ast& ast, Runtime& runtime);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  std::string run(const json::Value& variables);
  int line() const { return line_; }  // of what ran last: where an error came from

 private:
  // The names of one block; those of the blocks around it are seen through `parent`.
  struct Scope {
    std::shared_ptr<Scope> parent;
    std::vector<std::pair<int, Value>> variables;
    bool kept = false;  // a macro holds on to it
    Charge charge;
    Value* find(int name);
    void set(int name, Value value);
  };
  using ScopePtr = std::shared_ptr<Scope>;
  // Text being put together: the output, a macro's, a block's.
  struct Output {
    std::string text;
    Charge charge;
  };
  enum class Flow : std::uint8_t { kNext, kBreak, kContinue };
  class Depth;

  Value evaluate(const Expr& expr);
  Value evaluate_name(const Expr& expr);
  Value evaluate_list(const Expr& expr);
  Value evaluate_dict(const Expr& expr);
  Value evaluate_arithmetic(const Expr& expr);
  Value evaluate_concat(const Expr& expr);
  Value evaluate_compare(const Expr& expr);
  Value evaluate_logic(const Expr& expr);
  Value evaluate_conditional(const Expr& expr);
  Value evaluate_slice(const Expr& expr);
  Value evaluate_call(const Expr& expr, const Value* caller = nullptr);
  Value evaluate_filter(const Expr& expr, const Value* block = nullptr);
  Value evaluate_test(const Expr& expr);
  Arguments evaluate_arguments(const std::vector<Argument>& arguments);

  Flow run_body(const Body& body);
  Flow run_statement(const Statement& statement);
  Flow run_if(const Statement& statement);
  Flow run_for(const Statement& statement);
  Flow run_scoped(const Body& body);
  void run_set(const Statement& statement);
  void run_with(const Statement& statement);
  void run_call_block(const Statement& statement);
  Value make_macro(const Statement& statement);
  Value call_macro(const Statement& statement, const ScopePtr& scope, const Arguments& arguments);
  void bind_parameters(const Statement& statement, const Arguments& arguments);
  Value captured(const Body& body);
  Values filtered_elements(const Statement& statement);

  void assign(const Target& target, const Value& value);
  void print(const Value& value);
  void write(std::string_view text);
  ScopePtr make_scope(ScopePtr parent);
  Value from_json(const json::Value& value);

  const Ast& ast_;
  Runtime& runtime_;
  ScopePtr scope_;
  std::vector<ScopePtr> kept_;  // of macros; emptied at the end, since they hold the macros in turn
  Output* output_ = nullptr;
  int line_ = 0;
  int depth_ = 0;
  int caller_name_ = -1, loop_name_ = -1, varargs_name_ = -1, kwargs_name_ = -1;
};

}  // namespace nibble::jinja
