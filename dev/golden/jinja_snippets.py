#!/usr/bin/env python3
"""Small templates that try one thing each, and what jinja2 makes of them in the environment of the transformers library.

    jinja_snippets.py OUT     writes OUT/snippets.json: [template, text], [template, null, message] or,
                              for mistakes of syntax, [template, null]; OUT is src/jinja/testdata

Needs transformers (5.23.0) and jinja2 (3.1.6).
"""
import datetime, json, sys

VARIABLES = {
    "text": "Hello, Wörld! 你好", "empty": "", "spaces": " \t two  words\n ", "lines": "one\ntwo\r\n\nthree", "n": 7, "negative": -3, "x": 2.5, "zero": 0, "yes": True,
    "no": False, "nothing": None, "list": [3, 1, 2], "words": ["b", "A", "c", "a"], "nested": [[1, [2, "x"]], {"k": None, "f": 1.0, "t": True}],
    "d": {"name": "n", "items": 5, "b": 2, "A": 1, "é": "ü\"'\\\n"}, "people": [{"name": "Ann", "age": 30, "at": {"city": "Bern"}}, {"name": "bob", "age": 25}, {"name": "Cy", "age": 30, "at": {"city": "Arles"}}],
    "html": "<a href='x'>&\"</a>", "code": "12abc", "number": " 42 ", "big": 123456789012, "tiny": 1e-07, "huge": 1e+16, "third": 0.1, "control": "a\x00\x1f\x7f\u2028b\u00a0",
}

PLAIN = r"""
{{ text }}|{{ n }}|{{ x }}|{{ yes }}|{{ nothing }}|{{ list }}|{{ nested }}|{{ d }}
{{ missing }}|{{ missing is defined }}|{{ d.missing is defined }}|{{ d.missing }}
{{ missing.attribute }}
{{ missing + 1 }}
{{ 1 + missing }}
{{ "a" + missing }}
{{ d.missing.deeper }}
{{ d["missing"]["deeper"] }}
{{ text.missing }}|{{ list[10] }}|{{ list["x"] }}|{{ nothing.x }}
{{ list[10] + 1 }}
{{ nothing.x + 1 }}
{{ nothing["x"].y }}
{{ missing() }}
{{ n() }}
{{ text() }}
{{ -missing }}
{{ missing < 1 }}
{{ missing == other_missing }}|{{ missing == none }}|{{ missing in [1] }}|{{ 1 in missing }}|{{ missing ~ "x" }}|{{ missing | length }}
{% for i in missing %}x{% else %}nothing{% endfor %}
{{ 1 + 2 * 3 - 4 / 2 }}|{{ 7 // 2 }}|{{ -7 // 2 }}|{{ -7 % 3 }}|{{ 7 % -3 }}|{{ 2 ** 10 }}|{{ 2 ** -1 }}|{{ 2 ** 3 ** 2 }}|{{ 7.5 // 2 }}|{{ -7.5 % 2 }}
{{ 1 / 0 }}
{{ 1 % 0 }}
{{ 1.5 / 0 }}
{{ 10 / 4 }}|{{ 10 / 5 }}|{{ 1e3 }}|{{ 1_000 }}|{{ 0x1F }}|{{ 0b101 }}|{{ 0o17 }}|{{ 1.5e-3 }}|{{ 3.0 }}|{{ .5 if false else 1 }}
{{ tiny }}|{{ huge }}|{{ third }}|{{ 1e22 }}|{{ 0.1 + 0.2 }}|{{ 100.0 }}|{{ 1e15 }}|{{ 123456789.123 }}|{{ 0.0001 }}|{{ 0.00001 }}|{{ -0.0 }}
{{ "a" * 3 }}|{{ [1] * 2 }}|{{ 2 * "ab" }}|{{ [1] + [2] }}|{{ (1,) + (2,) }}|{{ "x" * -1 }}
{{ "a" + 1 }}
{{ 1 + "a" }}
{{ [1] + "a" }}
{{ [1] + (2,) }}
{{ {} + {} }}
{{ nothing + 1 }}
{{ nothing + "a" }}
{{ "a" + nothing }}
{{ "a" - "b" }}
{{ -"a" }}
{{ 1 < 2 < 3 }}|{{ 1 < 3 < 2 }}|{{ "a" < "b" }}|{{ [1, 2] < [1, 3] }}|{{ 1 == 1.0 }}|{{ true == 1 }}|{{ "1" == 1 }}|{{ 1 != 2 }}|{{ [1] == [1.0] }}|{{ (1,) == [1] }}|{{ {"a": 1} == {"a": 1.0} }}
{{ 1 < "a" }}
{{ none > 1 }}
{{ [1] < 2 }}
{{ "a" in "abc" }}|{{ 1 in [1, 2] }}|{{ "name" in d }}|{{ "x" not in d }}|{{ not "a" in "b" }}|{{ 1 in (1, 2) }}|{{ true in [1] }}
{{ 1 in "abc" }}
{{ 1 in 5 }}
{{ [1] in d }}
{{ "in" in nothing }}
{{ true and false or true }}|{{ 0 or "x" }}|{{ "" and 1 }}|{{ not 0 }}|{{ not not "x" }}|{{ none or missing or 5 }}|{{ 1 and 2 and 3 }}
{{ "a" if yes }}|{{ "a" if no }}|{{ "a" if no else "b" if no else "c" }}|{{ ("a" if no) is defined }}
{{ ("a" if no) + "x" }}
{{ 1 ~ 2 ~ none ~ true ~ 1.0 ~ [1, "a"] }}|{{ "a" ~ "b" * 2 }}
{{ text[0] }}|{{ text[-1] }}|{{ text[8] }}|{{ text[1:5] }}|{{ text[-3:] }}|{{ text[::-1] }}|{{ text[::2] }}|{{ text[100:] }}|{{ text[:-100] }}|{{ text[5:2] }}
{{ list[0] }}|{{ list[-1] }}|{{ list[1:] }}|{{ list[:-1] }}|{{ list[::-1] }}|{{ list[:] }}|{{ (1, 2, 3)[1:] }}|{{ range(5)[1] }}|{{ list[-5:2] }}|{{ list.0 }}
{{ list[::0] }}
{{ list["a":] }}
{{ d[0:1] }}
{{ 5[0] }}|{{ 5[0:1] }}
{{ d.name }}|{{ d["name"] }}
{{ d["items"] }}|{{ d.get("items") }}|{{ d.get("x") }}|{{ d.get("x", 3) }}|{{ d.keys() }}|{{ d.values() }}|{{ d.items() }}|{{ d.keys() | list }}
{{ {"a": 1, "a": 2} }}|{{ {1: "x", "b": [1]} }}|{{ {} }}|{{ [] }}|{{ () }}|{{ (1,) }}|{{ (1, 2) }}|{{ 1, 2 }}|{{ [1, 2,] }}|{{ {"a": 1,} }}
{{ {[1]: 2} }}
{{ {1: "a"}[1] }}|{{ {1: "a"}[1.0] }}|{{ {true: "a"}[1] }}|{{ {none: 5}[none] }}
{{ "it's" }}|{{ ["it's", 'say "x"', "both ' and \""] }}|{{ ["\n\t\\", "é", "\u2028"] }}|{{ [control] }}
{{ "a" "b" 'c' }}|{{ "tab\there" }}|{{ 'new\nline' }}|{{ "\x41\u00e9\U0001F600\101" }}|{{ "\d\'" }}
{{ text.upper() }}|{{ text.lower() }}|{{ "hELLO wORLD it's".title() }}|{{ "hELLO".capitalize() }}|{{ "straße".upper() }}|{{ "aBc".swapcase() }}
{{ spaces.strip() }}|{{ spaces.lstrip() }}|{{ spaces.rstrip() }}|{{ "xxaxx".strip("x") }}|{{ "abcba".lstrip("ab") }}|{{ "abcba".rstrip("ab") }}|{{ "\u3000a\u00a0".strip() }}|{{ "a".strip(none) }}
{{ "a,b,,c".split(",") }}|{{ spaces.split() }}|{{ "a b c d".split(" ", 2) }}|{{ "a b c d".rsplit(" ", 1) }}|{{ "a  b c".split(none, 1) }}|{{ "a b  c".rsplit(none, 1) }}|{{ "".split() }}|{{ "".split(",") }}|{{ "a--b".split("--")[1] }}
{{ "a".split("") }}
{{ "a".split(1) }}
{{ "a=b=c".partition("=") }}|{{ "a=b=c".rpartition("=") }}|{{ "abc".partition("=") }}|{{ "abc".rpartition("=") }}
{{ text.startswith("Hello") }}|{{ text.endswith("好") }}|{{ text.startswith(("x", "H")) }}|{{ "abc".startswith("b", 1) }}|{{ "abc".endswith("b", 0, 2) }}
{{ text.startswith(1) }}
{{ "aXbXc".replace("X", "-") }}|{{ "aXbXc".replace("X", "-", 1) }}|{{ "abc".replace("", ".") }}|{{ "abc".replace("abc", "") }}
{{ "abcabc".find("c") }}|{{ "abcabc".rfind("c") }}|{{ "äöü".find("ü") }}|{{ "abc".find("x") }}|{{ "abcabc".count("bc") }}|{{ "abc".index("b") }}
{{ "abc".index("x") }}
{{ ",".join(["a", "b"]) }}|{{ "".join("abc") }}|{{ ", ".join(d) }}
{{ ",".join([1]) }}
{{ "abc".isalpha() }}|{{ "12".isdigit() }}|{{ "a1".isalnum() }}|{{ " ".isspace() }}|{{ "AB".isupper() }}|{{ "ab1".islower() }}|{{ "1".isupper() }}|{{ "".isalpha() }}|{{ "é".isascii() }}|{{ "a".isnumeric() }}
{{ "abc".removeprefix("a") }}|{{ "abc".removesuffix("c") }}|{{ "a".ljust(3, "-") }}|{{ "a".rjust(3) }}|{{ "a".center(4, "*") }}|{{ "ab".center(5, "*") }}|{{ "-5".zfill(4) }}
{{ lines.splitlines() }}|{{ lines.splitlines(true) }}
{{ "{} and {}".format(1, "x") }}|{{ "{1}{0}".format("a", "b") }}|{{ "{name}: {v:.2f}".format(name="n", v=1) }}|{{ "{:>5}|{:<5}|{:^5}|{:05d}|{:,}".format("a", "b", "c", 42, 1234567) }}|{{ "{{}}".format() }}|{{ "{0[a]} {0.b}".format({"a": 1}) }}
{{ "{}".format() }}
{{ "{x}".format(y=1) }}
{{ "%s is %d, %.2f, %5s|%-5s|%05d %r %x %%" % ("a", 3, 1.5, "b", "c", 42, "q", 255) }}|{{ "%s" % 5 }}|{{ "%(a)s" % {"a": 1} }}
{{ "%s %s" % ("a",) }}
{{ "%s" % ("a", "b") }}
{{ "%d" % "a" }}
{{ "abc" | upper }}|{{ "ABC" | lower }}|{{ "hello wORLD-foo (bar) it's" | title }}|{{ "hELLO" | capitalize }}|{{ spaces | trim }}|{{ "xax" | trim("x") }}|{{ 5 | string + "a" }}
{{ text | length }}|{{ list | length }}|{{ d | length }}|{{ list | count }}|{{ d.items() | length }}|{{ range(4) | length }}
{{ 5 | length }}
{{ nothing | length }}
{{ (list | map("string")) | length }}
{{ missing | default("x") }}|{{ nothing | default("x") }}|{{ nothing | default("x", true) }}|{{ "" | d("y", boolean=true) }}|{{ missing | default }}|{{ d.zzz | default(5) + 1 }}
{{ list | first }}|{{ list | last }}|{{ text | first }}|{{ [] | first }}|{{ d | first }}|{{ list | min }}|{{ list | max }}|{{ list | sum }}|{{ words | min }}|{{ people | map(attribute="age") | sum }}|{{ people | sum(attribute="age", start=1) }}
{{ ([] | first) + 1 }}
{{ list | join }}|{{ list | join(", ") }}|{{ people | join(", ", attribute="name") }}|{{ "abc" | join("-") }}|{{ [1, none, true, 2.0, "x"] | join("|") }}
{{ nothing | join(",") }}
{{ list | sort }}|{{ list | sort(reverse=true) }}|{{ words | sort }}|{{ words | sort(case_sensitive=true) }}|{{ people | sort(attribute="age") | map(attribute="name") | list }}|{{ people | sort(attribute="name", reverse=true) | map(attribute="name") | join }}
{{ [1, "a"] | sort }}
{{ words | unique | list }}|{{ [1, 2, 1.0, 3] | unique | list }}|{{ people | unique(attribute="age") | map(attribute="name") | list }}
{{ list | reverse | list }}|{{ "abc" | reverse }}|{{ d | list }}|{{ "abc" | list }}|{{ d | dictsort }}|{{ d | dictsort(true) }}|{{ {"a": 2, "b": 1} | dictsort(by="value") }}|{{ {"a": 2, "b": 1} | dictsort(false, "key", true) }}
{{ d | items | list }}|{{ missing | items | list }}
{{ list | items | list }}
{{ people | map(attribute="at.city") | list }}|{{ people | map(attribute="at.city", default="-") | list }}|{{ words | map("upper") | list }}|{{ words | map("replace", "a", "z") | list }}|{{ ["1", "2"] | map("int") | sum }}|{{ nothing | map("upper") | list }}|{{ nested | map(attribute="0") | list }}
{{ list | map("nofilter") | list }}
{{ list | select("gt", 1) | list }}|{{ list | reject("odd") | list }}|{{ [0, 1, "", "x", none] | select | list }}|{{ people | selectattr("age", "equalto", 30) | map(attribute="name") | list }}|{{ people | rejectattr("at") | map(attribute="name") | list }}|{{ people | selectattr("at", "defined") | list | length }}|{{ people | selectattr("name", "in", ["Ann", "Cy"]) | list | length }}|{{ people | selectattr("at.city", "==", "Bern") | list | length }}
{% set g = list | select("gt", 1) %}{{ g | list }}{{ g | list }}{{ "t" if g else "f" }}
{{ 5 | int }}|{{ "5" | int }}|{{ "x" | int }}|{{ "x" | int(7) }}|{{ 5.9 | int }}|{{ "5.9" | int }}|{{ number | int }}|{{ code | int }}|{{ "ff" | int(0, 16) }}|{{ nothing | int }}|{{ true | int }}|{{ "1.5" | float }}|{{ "x" | float }}|{{ 3 | float }}|{{ "1e3" | float }}|{{ -5 | abs }}|{{ -2.5 | abs }}
{{ 2.567 | round(2) }}|{{ 2.5 | round }}|{{ 3.5 | round }}|{{ 2.1 | round(method="ceil") }}|{{ 2.9 | round(0, "floor") }}|{{ 42 | round }}|{{ 1234 | round(-2) }}
{{ "a-b-a" | replace("a", "x") }}|{{ "a-b-a" | replace("a", "x", 1) }}|{{ 121 | replace(1, 3) }}|{{ html | replace("<", "[") }}
{{ lines | indent }}|{{ lines | indent(2, true) }}|{{ lines | indent(2, blank=true) }}|{{ lines | indent(width=">>") }}|{{ "a\n" | indent(1) }}|{{ "" | indent }}
{{ html | escape }}|{{ html | e }}|{{ html | safe }}|{{ html | safe + "<" }}|{{ "<" + html | safe }}|{{ html | safe ~ "<" }}|{{ (html | safe).upper() + "&" }}|{{ [html | safe] }}|{{ html | safe | trim + "<" }}
{{ people | groupby("age") | map("first") | list }}|{% for age, members in people | groupby("age") %}{{ age }}:{{ members | length }} {% endfor %}|{{ [1, 2, 3, 4, 5] | batch(2) | list }}|{{ [1, 2, 3] | batch(2, "-") | list }}
{{ text | wordcount }}|{{ "a b" | urlencode }}|{{ "foo bar baz qux" | truncate(9) }}|{{ "foo bar baz qux" | truncate(9, true) }}|{{ "ab" | center(6) }}|{{ "%s-%s" | format(1, "b") }}|{{ d | attr("name") is defined }}
{{ d | tojson }}|{{ nested | tojson }}|{{ nothing | tojson }}|{{ text | tojson }}|{{ html | tojson }}|{{ x | tojson }}|{{ yes | tojson }}|{{ control | tojson }}|{{ (1, 2) | tojson }}|{{ tiny | tojson }}|{{ huge | tojson }}|{{ big | tojson }}|{{ [] | tojson }}|{{ {} | tojson }}
{{ d | tojson(indent=2) }}|{{ nested | tojson(indent=4) }}|{{ [] | tojson(indent=2) }}|{{ {"a": {}, "b": []} | tojson(indent=1) }}|{{ {"a": 1} | tojson(indent="--") }}|{{ [1] | tojson(indent=0) }}
{{ text | tojson(ensure_ascii=true) }}|{{ "😀" | tojson(ensure_ascii=true) }}|{{ d | tojson(sort_keys=true) }}|{{ {"a": [1, 2]} | tojson(separators=(",", ":")) }}|{{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }}
{{ missing | tojson }}
{{ range | tojson }}
{{ d.items() | tojson }}
{{ {(1, 2): 3} | tojson }}
{{ n is number }}|{{ yes is number }}|{{ x is float }}|{{ n is integer }}|{{ yes is integer }}|{{ yes is boolean }}|{{ "a" is string }}|{{ list is sequence }}|{{ "a" is sequence }}|{{ d is sequence }}|{{ d is mapping }}|{{ list is mapping }}|{{ n is iterable }}|{{ "a" is iterable }}|{{ list is iterable }}|{{ d.items() is sequence }}|{{ missing is iterable }}|{{ missing is sequence }}|{{ nothing is none }}|{{ missing is none }}|{{ missing is undefined }}|{{ range is callable }}|{{ text is callable }}
{{ yes is true }}|{{ 1 is true }}|{{ no is false }}|{{ 3 is odd }}|{{ 4 is even }}|{{ 6 is divisibleby 3 }}|{{ 6 is divisibleby(4) }}|{{ 1 is eq 1 }}|{{ 1 is ne(2) }}|{{ 2 is gt 1 }}|{{ 1 is lessthan 2 }}|{{ 1 is in [1, 2] }}|{{ 3 is not in [1, 2] }}|{{ "a" is lower }}|{{ "A" is upper }}|{{ 1 is sameas 1 }}|{{ none is sameas none }}|{{ "upper" is filter }}|{{ "odd" is test }}|{{ 1 is not string }}|{{ not 1 is string }}|{{ "a" is equalto "a" and true }}
{{ "a" is odd }}
{{ 1 is notest }}
{{ 1 | nofilter }}
{% if no %}{{ 1 | nofilter }}{% endif %}ok
{% if yes %}{{ 1 | nofilter }}{% endif %}
{% if no %}{% for i in [1] %}{{ i | nofilter }}{% endfor %}{% endif %}
{{ "x" if yes else 1 | nofilter }}
{% if 1 is string is number %}{% endif %}
{% for i in list %}{{ loop.index }}/{{ loop.length }} {{ loop.index0 }} {{ loop.revindex }} {{ loop.revindex0 }} {{ loop.first }} {{ loop.last }} {{ loop.previtem }} {{ loop.nextitem }} {{ loop.depth }} {{ loop.cycle("a", "b") }} {{ loop.changed(i) }};{% endfor %}
{% for i in [] %}x{% else %}empty{% endfor %}|{% for i in list if i > 1 %}{{ i }}{{ loop.last }}{% endfor %}|{% for i in list if i > 9 %}{% else %}none{% endfor %}
{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }}{% endfor %}|{% for k, v in d.items() %}{{ k }}={{ v }} {% endfor %}|{% for k in d %}{{ k }}{% endfor %}|{% for c in "aé" %}{{ c }}.{% endfor %}|{% for (a, (b, c)) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{% endfor %}
{% for a, b in [(1,)] %}{% endfor %}
{% for a in 5 %}{% endfor %}
{% for a in nothing %}{% endfor %}
{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}|{% for i in range(2) %}{% for j in range(3) %}{% if j == 1 %}{% break %}{% endif %}{{ i }}{{ j }} {{ loop.depth }}{% endfor %}{{ loop.index }}{% endfor %}
{% set v = 1 %}{% for i in list %}{% set v = i %}{{ v }}{% endfor %}{{ v }}|{% set v = 0 %}{% for i in list %}{{ v }}{% set v = v + 1 %}{% endfor %}|{% for i in list %}{% if loop.first %}{% set w = 1 %}{% endif %}{{ w is defined }}{% endfor %}
{% set ns = namespace(a=1, b=[]) %}{% for i in list %}{% set ns.a = ns.a + i %}{% set ns.b = ns.b + [i] %}{% set ns.c = i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{{ ns.zzz }}|{% set ns2 = namespace({"x": 1}, y=2) %}{{ ns2.x }}{{ ns2["y"] }}
{% set d.x = 1 %}
{% set ns = namespace(_a=1) %}
{% set a, b = 1, 2 %}{{ a }}{{ b }}|{% set a = 1, 2 %}{{ a }}|{% set c %}block {{ a }}{% endset %}{{ c }}|{% set c | upper | trim %} x {% endset %}{{ c }}|{% set (e, f) = [3, 4] %}{{ e }}{{ f }}
{% if yes %}{% set inside = 1 %}{% endif %}{{ inside }}|{% if no %}a{% elif missing %}b{% elif 1 %}c{% else %}d{% endif %}
{% macro m(a, b=2, c=a) %}[{{ a }},{{ b }},{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(1, c=5) }}{{ m(b=1, a=2) }}{{ m() }}|{{ m }}|{{ m.name }}
{% macro m(a) %}{{ a + 1 }}{% endmacro %}{{ m() }}
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{% endmacro %}{{ m(z=2) }}
{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}
{% macro fact(n) %}{% if n > 1 %}{{ n }}*{{ fact(n - 1) }}{% else %}1{% endif %}{% endmacro %}{{ fact(5) }}|{% set out = fact(3) %}{{ out | length }}
{% set y = 1 %}{% macro m() %}{{ y }}{% endmacro %}{% set y = 2 %}{{ m() }}|{% macro outer() %}{% macro inner(q) %}<{{ q }}>{% endmacro %}{{ inner(1) }}{{ inner(2) }}{% endmacro %}{{ outer() }}
{% macro wrap(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call wrap("b") %}bold {{ n }}{% endcall %}|{% macro each(l) %}{% for i in l %}{{ caller(i) }}{% endfor %}{% endmacro %}{% call(i) each([1, 2]) %}({{ i }}){% endcall %}
{% filter upper %}abc {{ text }}{% endfilter %}|{% filter replace("a", "b") | trim %} aaa {% endfilter %}|{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}|{% generation %}g{% set q = 1 %}{% endgeneration %}{{ q is defined }}
{% raw %}{{ not }} {% this %}{% endraw %}|{#- comment -#} x {# other #}|{%- raw -%} y {%- endraw -%} |
{{ dict(a=1, b=2) }}|{{ dict({"x": 1}, y=2) }}|{{ dict([("a", 1)]) }}|{{ range(3) | list }}|{{ range(1, 7, 2) | list }}|{{ range(3, 0, -1) | list }}|{{ range(0) | list }}
{{ range(1000000) }}
{{ range("a") }}
{{ range(1, 5, 0) }}
{{ strftime_now("%Y-%m-%d %H:%M:%S %A %a %B %b %d %j %p %I %y %% %-d") }}
{{ raise_exception("It is " ~ n) }}
{{ raise_exception(none) }}
{% set j = joiner(", ") %}{% for i in list %}{{ j() }}{{ i }}{% endfor %}
{{ list.append(4) }}
{{ d.update({}) }}|
{{ d.pop("name") }}
{{ text.__class__ }}
{{ text.__class__.x }}
{{ list.copy() }}|{{ list.index(1) }}|{{ list.count(1) }}|{{ d.copy() == d }}|{{ (1, 2).index(2) }}
{{ list.index(9) }}
{{ m(*[1, 2], **{"c": 3}) }}{% macro m(a, b, c) %}{{ a }}{{ b }}{{ c }}{% endmacro %}
{% macro m(a, b, c) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(*[1, 2], **{"c": 3}) }}
{% unknown %}
{% if yes %}
{% for x in list %}{% endif %}
{{ 1 + }}
{{ (1 }}
{{ "open }}
{{ list[1 }}
{% set = 1 %}
{% set true = 1 %}
{{ 1 2 }}
{{ a.b. }}
{% endif %}
{{ {"a" 1} }}
{{ f(a=1, 2) }}
{% break %}
{# open
{% macro m(a=1, b) %}{% endmacro %}
""".strip("\n").split("\n")

# White space control needs several lines.
SPACED = [
    "a\n{% if yes %}\nb\n{% endif %}\nc\n", "a\n  {% if yes %}\n  b\n  {% endif %}\nc", "a  {% if yes %}  b  {% endif %}  c", "a \n {%- if yes -%} \n b \n {%- endif -%} \n c",
    "a\n  {%+ if yes %}\nb{% endif +%}\nc", "  {# c #}\nx\n  {#- c -#}  \ny", "{{ n }}\n{{ n }}\n", "a {{- n -}} b", "a\n  {{ n }}\n  {{- n }}\n{{ n -}}\n  c", "\n\na\n\n", "  {% if yes %}a{% endif %}",
    "x{% if yes %}\n\n\ny{% endif %}", "{% for i in list %}\n{{ i }}\n{% endfor %}\nend", "{% for i in list -%}\n  {{ i }}\n{%- endfor %}\nend", "\t {%- set q = 1 %}\n\t{{ q }}", "a\r\nb\rc\n{% if yes %}\r\nd{% endif %}\r\n",
    "{% if yes %}  \n a{% endif %}", "a{# c #}\nb", "{{ '}}' }}{{ \"%}\" }}{{ {'a': {'b': 1}} }}", "{%- raw %}\n  a\n  {% endraw %}\nb", "{% raw -%}\n  a\n  {%- endraw %}\nb", "{{ d\n.name\n}}{% set\nq\n=\n1 %}{{ q }}",
    "line 1\n{{ missing.x }}", "{% macro m() %}\n  x\n{% endmacro %}\n{{ m() }}|", "{\n{ n }\n}", "{%- if yes -%}\n{{- 'a' -}}\n{%- endif -%}\n", "a\n{%- if yes %}\n\n  b\n{%- endif %}\n  c",
]


def main(out):
    import jinja2
    from transformers.utils import chat_template_utils

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime(2026, 3, 7, 9, 5, 3)

    chat_template_utils.datetime = Clock
    results = []
    for source in PLAIN + SPACED:
        try:
            results.append([source, chat_template_utils._compile_jinja_template(source).render(**VARIABLES)])
        except jinja2.TemplateAssertionError as error:
            results.append([source, None, str(error)])
        except (jinja2.TemplateSyntaxError, SyntaxError) as error:
            results.append([source, None])
        except Exception as error:
            results.append([source, None, str(error)])
    with open(out + "/snippets.json", "w") as file:
        file.write('{"variables":' + json.dumps(VARIABLES, ensure_ascii=False) + ',\n"snippets":[\n' + ",\n".join(json.dumps(r, ensure_ascii=False) for r in results) + "]}\n")
    print(len(results), "snippets,", sum(r[1] is None for r in results), "errors")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
