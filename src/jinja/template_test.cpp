// What the golden data does not show: lines in errors, and the bounds that no template gets over.
#include "jinja/template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace nibble::jinja {
namespace {

using ::testing::HasSubstr;

std::string render(const std::string& source, const json::Value& variables = json::Object{},
                   const Limits& limits = {}) {
  return Template(source, limits).render(variables, std::tm{});
}

std::string refusal(const std::string& source, const Limits& limits = {}) {
  try {
    return "rendered: " + render(source, json::Object{}, limits).substr(0, 80);
  } catch (const Error& error) {
    return error.what();
  }
}

std::string repeated(const std::string& text, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += text;
  return out;
}

TEST(Template, ErrorsNameTheLineAndKeepTheTemplatesWords) {
  EXPECT_EQ(refusal("a\n{% if true %}\n  {{ missing.x }}\n{% endif %}"), "line 3: 'missing' is undefined");
  EXPECT_EQ(refusal("\n\n{{ 1 | nofilter }}"), "line 3: No filter named 'nofilter'.");
  EXPECT_EQ(refusal("\n{% if true %}\n{{ (1 }}"), "line 3: unexpected '}', expected ')'");
  EXPECT_EQ(refusal("{% macro m() %}\n{{ raise_exception('no') }}{% endmacro %}\n\n{{ m() }}"), "line 2: no");
  try {
    render("\n{{ raise_exception('Only users may speak') }}");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "Only users may speak");
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  }
}

TEST(Template, VariablesAreNotChanged) {
  const json::Value variables = json::parse(R"({"messages": [{"role": "user", "content": "hi"}]})");
  const Template greeting("{% set messages = [] %}{{ messages | length }}");
  EXPECT_EQ(greeting.render(variables, {}), "0");
  EXPECT_EQ(greeting.render(variables, {}), "0");
}

TEST(Template, WorkIsBounded) {
  const std::string loop = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
  EXPECT_THAT(refusal(loop), HasSubstr("too much work"));
  EXPECT_THAT(refusal("{% set ns = namespace(s='ab') %}" + loop), HasSubstr("too much work"));
  // Small values whose text would be endless.
  const std::string doubled =
      "{% set ns = namespace(x=[1]) %}{% for i in range(300) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
  for (const char* use : {"{{ ns.x }}", "{{ ns.x | tojson }}", "{{ ns.x == [ns.x[0], ns.x[1]] }}{{ ns.x == ns.x }}"}) {
    EXPECT_THAT(refusal(doubled + use), HasSubstr("too much")) << use;
  }
  const Limits few{.work = 1000};
  EXPECT_THAT(refusal("{% for i in range(1000) %}{{ i }}{% endfor %}", few), HasSubstr("more than 1000 steps"));
  EXPECT_EQ(render("{% for i in range(20) %}{{ i }}{% endfor %}", json::Object{}, few).size(), 30u);
}

TEST(Template, MemoryIsBounded) {
  const std::string grow = "{% set ns = namespace(s='abcdefgh', l=[1]) %}{% for i in range(100) %}";
  for (const std::string& source :
       {grow + "{% set ns.s = ns.s + ns.s %}{% endfor %}", grow + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        grow + "{% set ns.l = ns.l + ns.l %}{% endfor %}",
        grow + "{% set ns.s = ns.s | replace('a', 'aaaaaaaa') %}{% endfor %}",
        grow + "{% set ns.s = [ns.s, ns.s] | join(ns.s) %}{% endfor %}",
        grow + "{% set ns.s = '%s%s' % (ns.s, ns.s) %}{% endfor %}",
        grow + "{% set ns.s = '{0}{0}'.format(ns.s) %}{% endfor %}",
        grow + "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}{% endfor %}", std::string("{{ 'abc' * 10000000000 }}"),
        std::string("{{ [1] * 9223372036854775807 }}"), std::string("{{ 'a'.ljust(9000000000) }}"),
        std::string("{{ 'a'.center(9000000000) | length }}"),
        std::string("{% for i in range(100000) %}{{ 'abc' * 10000 }}{% endfor %}"),
        std::string(
            "{% set l = ['x' * 100000000] %}{% set m = l + ['y' * 100000000] %}{% set n = m + ['z' * 100000000] %}")}) {
    EXPECT_THAT(refusal(source), HasSubstr("the chat template ")) << source;
  }
  EXPECT_THAT(refusal("{{ '%99999999d' % 1 }}"), HasSubstr("more than 10000"));
  EXPECT_THAT(refusal("{{ '{:99999999d}'.format(1) }}"), HasSubstr("more than 10000"));
  EXPECT_THAT(refusal("{{ strftime_now('%9999999Y') }}"), HasSubstr("a date of more than"));
  // What is let go does not count.
  EXPECT_EQ(render("{% for i in range(300) %}{% set s = 'x' * 1000000 %}{% endfor %}ok"), "ok");
}

TEST(Template, DepthIsBounded) {
  for (const std::string& source :
       {std::string("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
        std::string("{% macro m(n) %}{% set x %}{{ m(n + 1) }}{% endset %}{{ x }}{% endmacro %}{{ m(0) }}"),
        std::string("{% macro m() %}{{ caller() }}{% endmacro %}{% macro r() %}{% call m() %}{{ r() }}{% endcall %}{% "
                    "endmacro %}{{ r() }}"),
        "{{ " + repeated("(", 100000) + "1" + repeated(")", 100000) + " }}",
        "{{ " + repeated("[", 100000) + repeated("]", 100000) + " }}", "{{ " + repeated("not ", 100000) + "1 }}",
        "{{ " + repeated("-", 100000) + "1 }}", "{{ x" + repeated(".a", 100000) + " }}",
        "{{ 1" + repeated("|abs", 100000) + " }}", "{{ x" + repeated("()", 100000) + " }}",
        "{{ " + repeated("1 if 1 else ", 100000) + "1 }}", "{{ 1" + repeated(" if 1", 100000) + " }}",
        "{{ 1" + repeated(" is string", 1) + repeated("|string is string", 100000) + " }}",
        repeated("{% if 1 %}", 100000) + repeated("{% endif %}", 100000),
        repeated("{% for i in [1] %}", 100000) + repeated("{% endfor %}", 100000),
        "{% set " + repeated("(", 100000) + "a" + repeated(")", 100000) + " = 1 %}",
        std::string("{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}"),
        std::string("{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}"),
        std::string("{% set ns = namespace(x=[1]) %}{% for i in range(1000) %}{% set ns.x = ns.x | map('abs') %}{% "
                    "endfor %}")}) {
    EXPECT_THAT(refusal(source), HasSubstr(" deep")) << source.substr(0, 80);
  }
  // Long is not deep.
  EXPECT_EQ(render("{{ 1" + repeated(" + 1", 50000) + " }}"), "50001");
  EXPECT_EQ(render("{{ 'a'" + repeated(" ~ 'a'", 1000) + " }}").size(), 1001u);
  EXPECT_EQ(render("{% if 0 %}" + repeated("{% elif 0 %}", 50000) + "{% else %}x{% endif %}"), "x");
}

TEST(Template, ValuesThatHoldThemselvesEnd) {
  EXPECT_EQ(render("{% set ns = namespace() %}{% set ns.self = ns %}{% set ns.l = [ns] %}{{ ns.l | length }}"), "1");
  EXPECT_EQ(render("{% macro a() %}{{ b is defined }}{% endmacro %}{% set b = a %}{{ a() }}"), "True");
  // A chain of namespaces, let go at the end.
  EXPECT_EQ(
      render(
          "{% set ns = namespace(x=0) %}{% for i in range(100000) %}{% set ns.x = namespace(x=ns.x) %}{% endfor %}ok"),
      "ok");
}

TEST(Template, AnyBytesGiveTextOrAnError) {
  for (const char* source :
       {"{{", "{%", "{#", "{{ '\\", "{{ \"\\u12", "{%-", "{{ 1.", "{{ 0x }}", "{% raw %}", "{{ 9223372036854775808 }}",
        "{{ -9223372036854775807 - 2 }}", "{{ 9223372036854775807 * 2 }}", "{{ 2 ** 64 }}", "{{ (-2) ** 63 // -1 }}",
        "{{ [][::-9223372036854775807] }}{{ 1 / 0 }}", "{{ '\xff\xfe' }}{{ 1 / 0 }}", "{{ x\xc2\xa0 }}{{1/0}}"}) {
    EXPECT_NE(refusal(source).rfind("rendered", 0), 0u) << source;
  }
  EXPECT_EQ(render("\xff{{ '\xe2\x82' }}"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(render(std::string("a\0b", 3)), std::string("a\0b", 3));
  EXPECT_EQ(render(""), "");
}

}  // namespace
}  // namespace nibble::jinja
