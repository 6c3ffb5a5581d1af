#!/usr/bin/env python3
"""Real chat templates and what the transformers library makes of them.

    chat_templates.py collect LLAMA_CPP OUT   copies the templates of a checkout of github.com/ggml-org/llama.cpp: the files of models/templates and
                                              the ones that tests/test-chat-template.cpp quotes, all verbatim from the models' own repositories
    chat_templates.py render OUT              renders every OUT/templates/*.jinja in every conversation, writes OUT/golden.json

Needs transformers (5.23.0), tokenizers and jinja2 (3.1.6). OUT is src/jinja/testdata. Each result is stored as what differs from the one before:
[bytes shared at the start, bytes shared at the end, what stands between], or {"error": message}.
"""
import ast, datetime, json, os, re, shutil, sys

NOW = datetime.datetime(2026, 3, 7, 9, 5, 3)

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Get the current weather in a city.",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "The city, e.g. \"Zürich\""},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
        "days": {"type": "integer", "minimum": 1, "maximum": 14.5}},
        "required": ["city"]}}}
SEARCH = {"type": "function", "function": {
    "name": "search", "description": "Searches <documents> & pages.\nTwo lines.",
    "parameters": {"type": "object", "properties": {
        "query": {"type": "string", "description": "What to look for"},
        "filters": {"type": "object", "description": "Limits", "properties": {
            "tags": {"type": "array", "items": {"type": "string"}, "description": "Any of these"}, "exact": {"type": ["boolean", "null"]}}},
        "limit": {"type": "number", "nullable": True}},
        "required": ["query", "limit"], "additionalProperties": False}, "return": {"type": "string"}}}
NO_PARAMETERS = {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}}}

SYSTEM = {"role": "system", "content": "You are a careful assistant. Answer in one sentence."}
ASK = {"role": "user", "content": "What is the weather in Zürich?"}
HELLO = [{"role": "user", "content": "Hello, who are you?"}, {"role": "assistant", "content": "I am an assistant.\n\nAsk me anything. "},
         {"role": "user", "content": "  Thanks! 你好 <b>&\"quoted\" 'text'</b>\n"}]


# What single templates want besides; left out of the first cases.
OTHERS = {"additional_special_tokens": [f"<special {i}>" for i in range(8)], "functions": "[one, two]"}


def call(name, arguments, text=False, id="call00001"):
    return {"type": "function", "id": id, "function": {"name": name, "arguments": json.dumps(arguments) if text else arguments}}


def tool_turns(text, content=""):
    return [{"role": "assistant", "content": content, "tool_calls": [call("get_weather", {"city": "Zürich", "days": 2, "unit": None}, text)]},
            {"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": "{\"temperature\": 21.5, \"sky\": \"clear\"}"}]


def cases():
    tools = [WEATHER, SEARCH]
    two_calls = {"role": "assistant", "content": None, "tool_calls": [call("get_weather", {"city": "Bern"}), call(
        "search", {"query": "a\"b", "filters": {"tags": ["x", "y"], "exact": True}, "limit": 1.5}, id="call00002")]}
    answers = [{"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": "12 °C"},
               {"role": "tool", "tool_call_id": "call00002", "name": "search", "content": "nothing found"}]
    final = {"role": "assistant", "content": "It is 21.5 °C and clear."}
    thought = {"role": "assistant", "content": "Four.", "reasoning_content": "2 + 2 is 4.\nEasy."}
    in_text = {"role": "assistant", "content": "<think>\nLet me see.\n</think>\n\nIt is four."}
    parts = [{"role": "user", "content": [{"type": "text", "text": "First part."}, {"type": "text", "text": " Second part."}]}]
    picture = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
    again = {"role": "user", "content": "And 3 + 3?"}
    return [(*case[:4], case[4] if i < 4 else {**OTHERS, **case[4]}) for i, case in enumerate([
        ("user", [ASK], None, True, {}),
        ("user, no prompt", [ASK], None, False, {}),
        ("system", [SYSTEM, ASK], None, True, {}),
        ("turns", HELLO, None, True, {}),
        ("turns with system", [SYSTEM] + HELLO, None, True, {}),
        ("answered", [SYSTEM] + HELLO + [final], None, False, {}),
        ("tools", [ASK], tools, True, {}),
        ("tools, no prompt", [SYSTEM, ASK], tools + [NO_PARAMETERS], False, {}),
        ("tool answer", [SYSTEM, ASK] + tool_turns(False), tools, True, {}),
        ("tool answer, arguments as text", [ASK] + tool_turns(True), tools, True, {}),
        ("tool answer, said something", [ASK] + tool_turns(False, "Let me look.") + [final, again], tools, True, {}),
        ("two tool calls", [ASK, two_calls] + answers + [final], tools, False, {}),
        ("tool turns without tools", [ASK] + tool_turns(False) + [final], None, False, {}),
        ("reasoning", [SYSTEM, ASK, thought, again], None, True, {}),
        ("reasoning in the text", [ASK, in_text, again, thought], None, False, {}),
        ("thinking off", [ASK, thought, again], None, True, {"enable_thinking": False, "thinking": False, "reasoning_effort": "low"}),
        ("thinking on", [ASK], None, True, {"enable_thinking": True, "thinking": True, "reasoning_effort": "high"}),
        ("parts", parts, None, True, {}),
        ("picture", picture, None, True, {}),
        ("date", [SYSTEM, ASK], None, True, {"date_string": "26 Jul 2024"}),
        ("two users", [ASK, again], None, True, {}),
        ("system late", [ASK, SYSTEM, again], None, True, {}),
        ("assistant first", [final, ASK], None, True, {}),
        ("unknown role", [ASK, {"role": "critic", "content": "No."}], None, True, {}),
        ("no content", [{"role": "user"}], None, True, {}),
    ])]


def collect(llama_cpp, out):
    folder = out + "/templates"
    os.makedirs(folder, exist_ok=True)
    for name in sorted(os.listdir(llama_cpp + "/models/templates")):
        if name.endswith(".jinja"):
            shutil.copyfile(f"{llama_cpp}/models/templates/{name}", f"{folder}/{name}")
    source = open(llama_cpp + "/tests/test-chat-template.cpp").read()
    quoted = re.findall(r'/\* \.name= \*/ "([^"]*)",\s*/\* \.template_str= \*/ (?:u8)?("(?:[^"\\]|\\.)*")', source)
    for name, text in quoted:
        if "modified" not in name and "tool call" not in name:
            file = "quoted-" + re.sub(r"[^A-Za-z0-9.-]+", "-", name.split(" (")[0]) + ("-v1" if "'v1'" in name else "-v7" if "'v7'" in name else "")
            open(f"{folder}/{file}.jinja", "w").write(ast.literal_eval(text))


def difference(old, new):
    old, new = old.encode(), new.encode()
    most = min(len(old), len(new))
    start = next((i for i in range(most) if old[i] != new[i]), most)
    while start and start < len(new) and new[start] & 0xC0 == 0x80:
        start -= 1
    end = next((i for i in range(most - start) if old[-1 - i] != new[-1 - i]), most - start)
    while end and new[len(new) - end] & 0xC0 == 0x80:
        end -= 1
    return [start, end, new[start:len(new) - end].decode()]


def render(out):
    import jinja2
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from transformers.utils import chat_template_utils

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return NOW

    chat_template_utils.datetime = Clock
    seen = {}
    original = jinja2.Template.render

    def recorded(self, *args, **kwargs):
        seen.clear()
        seen.update(kwargs)
        return original(self, *args, **kwargs)

    jinja2.Template.render = recorded
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, "<unk>")), bos_token="<s>",
                                        eos_token="</s>", unk_token="<unk>")
    golden = {"now": NOW.isoformat(), "cases": [], "templates": {}}
    for name, messages, tools, prompt, extra in cases():
        tokenizer.apply_chat_template(messages, tools=tools, chat_template="x", add_generation_prompt=prompt, tokenize=False, **extra)
        golden["cases"].append({"name": name, "variables": dict(seen)})
    n_errors = 0
    for file in sorted(os.listdir(out + "/templates")):
        template = open(f"{out}/templates/{file}", newline="").read()
        results, before = [], ""
        for name, messages, tools, prompt, extra in cases():
            try:
                text = tokenizer.apply_chat_template(messages, tools=tools, chat_template=template, add_generation_prompt=prompt, tokenize=False, **extra)
                results.append(difference(before, text))
                before = text
            except Exception as error:
                n_errors += 1
                results.append({"error": str(error)})
        golden["templates"][file] = results
    lines = ['"now":' + json.dumps(golden["now"]), '"cases":[\n' + ",\n".join(json.dumps(c, ensure_ascii=False) for c in golden["cases"]) + "]"]
    lines.append('"templates":{\n' + ",\n".join(json.dumps(k) + ":[\n" + ",\n".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) for r in v) + "]"
                                                for k, v in golden["templates"].items()) + "}")
    open(out + "/golden.json", "w").write("{" + ",\n".join(lines) + "}\n")
    print(len(golden["templates"]), "templates,", len(golden["cases"]), "cases each,", n_errors, "errors")


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "collect":
        collect(sys.argv[2], sys.argv[3])
    elif len(sys.argv) == 3 and sys.argv[1] == "render":
        render(sys.argv[2])
    else:
        sys.exit(__doc__)
