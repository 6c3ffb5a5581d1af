// A parsed template. Every node knows its line; how deep nodes nest is bounded when they are made.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "jinja/value.h"

namespace nibble::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;
using FilterFunction = Value (*)(Runtime&, const Value& input, const Arguments&);
using TestFunction = bool (*)(Runtime&, const Value& input, const Arguments&);

enum class Operator : std::uint8_t {
  kAdd,
  kSub,
  kMul,
  kDiv,
  kFloorDiv,
  kMod,
  kPow,
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  kIn,
  kNotIn
};

struct Argument {
  enum class Kind : std::uint8_t { kPositional, kNamed, kUnpackList, kUnpackDict };
  Kind kind = Kind::kPositional;
  std::string name;
  ExprPtr value;
};

struct Expr {
  enum class Kind : std::uint8_t {
    kConstant,
    kName,
    kList,
    kTuple,
    kDict,  // key, value, key, value ...
    kNot,
    kNegate,
    kPositive,
    kArithmetic,  // from left to right: operands[0] operators[0] operands[1] operators[1] ...
    kConcat,      // ~
    kCompare,     // a < b < c: each with its neighbour
    kAnd,
    kOr,
    kConditional,  // condition, value, other value or null
    kAttribute,    // operands[0] . text
    kSubscript,    // object, index
    kSlice,        // object, start, stop, step; null where left out
    kCall,         // operands[0] (arguments)
    kFilter,       // operands[0] | text (arguments); operands[0] null: of the block it belongs to
    kTest,         // operands[0] is text (arguments)
  };
  Kind kind{};
  int line = 0;
  int depth = 1;
  int name = -1;  // kName: its number in the template's names
  std::string text;
  Value constant;
  std::vector<ExprPtr> operands;
  std::vector<Operator> operators;
  std::vector<Argument> arguments;
  FilterFunction filter = nullptr;  // null where the name is unknown, which is told when it is reached
  TestFunction test = nullptr;
};

// What is assigned to: a name, an attribute of a namespace, or several targets that share a sequence.
struct Target {
  int name = -1;
  std::string attribute;
  std::vector<Target> parts;
  bool is_tuple = false;
};

struct Statement;
using Body = std::vector<Statement>;

struct Branch {
  ExprPtr condition;  // null: else
  Body body;
};

struct Parameter {
  int name = -1;
  std::string text;
  ExprPtr fallback;
};

struct Statement {
  enum class Kind : std::uint8_t {
    kText,
    kPrint,
    kIf,         // branches
    kFor,        // target in value [if condition]: body, else_body
    kSet,        // target = value
    kSetBlock,   // target = body, through the filters of `value` where there are
    kMacro,      // target(parameters): body
    kCallBlock,  // value is called with a macro of parameters and body as `caller`
    kFilterBlock,
    kWith,   // parameters are names and values
    kScope,  // generation: a body with its own names
    kBreak,
    kContinue,
  };
  Kind kind{};
  int line = 0;
  std::string text;
  Target target;
  ExprPtr value, condition;
  std::vector<Branch> branches;
  std::vector<Parameter> parameters;
  Body body, else_body;
};

struct Ast {
  Body body;
  std::vector<std::string> names;
};

}  // namespace nibble::jinja
