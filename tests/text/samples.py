"""Answers with tool calls as models write them, one set per format, and what they say."""

from __future__ import annotations

from typing import Any, NamedTuple

from basert.text.parts import CallArguments, CallStart, Part, Reader, Text, Thought
from basert.tools.format import Tool

WEATHER = Tool(
    "weather",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 12},
            "days": {"type": "integer", "minimum": 0, "maximum": 14},
            "metric": {"type": "boolean"},
            "unit": {"enum": ["C", "F"]},
        },
        "required": ["city"],
    },
)
TAGS = Tool(
    "set_tags",
    {
        "type": "object",
        "properties": {"tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3}},
        "required": ["tags"],
    },
)
NOW = Tool("now", {})
TOOLS = [WEATHER, TAGS, NOW]

OSLO = ("weather", {"city": "Oslo"})
BERGEN = ("weather", {"city": 'Sør "B"\n', "days": 3, "metric": True})
BOTH = ("set_tags", {"tags": ["a", "b"]})
TIME: tuple[str, dict[str, Any]] = ("now", {})


class Sample(NamedTuple):
    form: str
    answer: str
    calls: list[tuple[str, dict[str, Any]]]
    text: str = ""
    thought: str = ""
    loose: bool = False  # a reader understands it, a grammar would not have it so


_OSLO = '{"name": "weather", "arguments": {"city": "Oslo"}}'
_BERGEN = r'{"name": "weather", "arguments": {"city": "Sør \"B\"\n", "days": 3, "metric": true}}'
_TIME = '{"name": "now", "arguments": {}}'
_BOTH = '{"name": "set_tags", "arguments": {"tags": ["a", "b"]}}'
_DS = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
)
_FENCED = f'{_DS[1]}function{_DS[2]}weather\n```json\n{{"city": "Oslo"}}\n```{_DS[3]}'
_HARMONY = '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Oslo"}<|call|>'
_GEMMA = "<start_function_call>call:"
_FINAL = "<|channel|>final<|message|>It rains."

SAMPLES = [
    Sample(
        "hermes",
        "No call: <tool_cal is nothing, {} neither.",
        [],
        "No call: <tool_cal is nothing, {} neither.",
    ),
    Sample("hermes", f"<tool_call>\n{_OSLO}\n</tool_call>", [OSLO]),
    Sample("hermes", f"I look.\n\n<tool_call>\n{_BERGEN}\n</tool_call>", [BERGEN], "I look."),
    Sample(
        "hermes",
        f"<tool_call>\n{_OSLO}\n</tool_call>\n<tool_call>\n{_TIME}\n</tool_call>\n",
        [OSLO, TIME],
    ),
    Sample(
        "hermes",
        '<tool_call>{"id": 7, "arguments": {"city":\n"Oslo"}, "name": "weather"}</tool_call> Done.',
        [OSLO],
        "Done.",
        loose=True,
    ),
    Sample("hermes", '<tool_call>{"name": "now"}</tool_call>', [TIME], loose=True),
    Sample(
        "hermes",
        r'<tool_call>{"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}</tool_call>',
        [OSLO],
        loose=True,
    ),
    Sample("hermes", "Say <tool_call> twice. ", [], "Say <tool_call> twice. ", loose=True),
    Sample("granite", f"<|tool_call|>[{_OSLO}, {_BOTH}]", [OSLO, BOTH]),
    Sample("granite", f"<tool_call>[{_OSLO}]", [OSLO], loose=True),
    Sample("phi4-mini", f"<|tool_call|>[{_OSLO}]<|/tool_call|>", [OSLO]),
    Sample("llama3", '{"name": "weather", "parameters": {"city": "Oslo"}}', [OSLO]),
    Sample(
        "llama3",
        '<|python_tag|>{"type": "function", "name": "now", "parameters": {}}; '
        '{"name": "weather", "parameters": {"city": "Oslo"}}',
        [TIME, OSLO],
        loose=True,
    ),
    Sample("llama3", '{"name": "Bob", "age": 3} \n', [], '{"name": "Bob", "age": 3} \n', loose=True),
    Sample("llama3", "The set {1, 2}.", [], "The set {1, 2}."),
    Sample("pythonic", '[weather(city="Oslo")]', [OSLO]),
    Sample(
        "pythonic",
        r'[weather(city="Sør \"B\"\n", days=3, metric=True), set_tags(tags=["a", "b"]), now()]',
        [BERGEN, BOTH, TIME],
    ),
    Sample(
        "pythonic",
        "<|python_start|>[weather(city='O' , days=-1,\nmetric=None, x={'k': [1.5, .5, {}],}, "
        "y='\\x41\\u00e9\\q')]<|python_end|>",
        [("weather", {"city": "O", "days": -1, "metric": None, "x": {"k": [1.5, 0.5, {}]}, "y": "Aé\\q"})],
        loose=True,
    ),
    Sample("pythonic", "[1, 2] is a list.", [], "[1, 2] is a list.", loose=True),
    Sample("mistral", '[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}', [OSLO]),
    Sample(
        "mistral",
        'Well.[TOOL_CALLS]now[ARGS]{}[TOOL_CALLS]set_tags[ARGS]{"tags": ["a", "b"]}',
        [TIME, BOTH],
        "Well.",
    ),
    Sample("mistral", '[TOOL_CALLS]weather[CALL_ID]a1b2c3d4e[ARGS]{"city": "Oslo"}', [OSLO], loose=True),
    Sample("mistral", '[TOOL_CALLS]weather{"city": "Oslo"}', [OSLO], loose=True),
    Sample("mistral-list", f"[TOOL_CALLS] [{_OSLO}, {_TIME}]", [OSLO, TIME]),
    Sample("gemma", f"{_GEMMA}weather{{city:<escape>Oslo<escape>}}<end_function_call>", [OSLO]),
    Sample(
        "gemma",
        '<start_function_call>call:weather{city:<escape>Sør "B"\n<escape>,days:3,metric:true}'
        "<end_function_call>"
        "<start_function_call>call:set_tags{tags:[<escape>a<escape>,<escape>b<escape>]}<end_function_call>"
        "<start_function_call>call:now{}<end_function_call>",
        [BERGEN, BOTH, TIME],
    ),
    Sample(
        "gemma",
        "<start_function_call>call:f{o:{k:<escape><esc<escape>, n: -2.5}, none: null}<end_function_call>",
        [("f", {"o": {"k": "<esc", "n": -2.5}, "none": None})],
        loose=True,
    ),
    Sample("deepseek-v3", f"{_DS[0]}{_FENCED}{_DS[4]}", [OSLO]),
    Sample("deepseek-v3", f"So:{_DS[0]}{_FENCED}\n{_FENCED}{_DS[4]}", [OSLO, OSLO], "So:"),
    Sample("deepseek-v3.1", f'{_DS[0]}{_DS[1]}weather{_DS[2]}{{"city": "Oslo"}}{_DS[3]}{_DS[4]}', [OSLO]),
    Sample(
        "deepseek-v3.1",
        f"{_DS[0]}{_DS[1]}now{_DS[2]}{{}}{_DS[3]}{_DS[1]}now{_DS[2]}{{}}{_DS[3]}{_DS[4]}",
        [TIME, TIME],
    ),
    Sample(
        "qwen3-coder",
        "<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>",
        [OSLO],
    ),
    Sample(
        "qwen3-coder",
        'Yes.\n<tool_call>\n<function=weather>\n<parameter=city>\nSør "B"\n\n</parameter>\n<parameter=days>\n'
        "3\n</parameter>\n<parameter=metric>\ntrue\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n"
        '<function=set_tags>\n<parameter=tags>\n["a", "b"]\n</parameter>\n</function>\n</tool_call>',
        [BERGEN, BOTH],
        "Yes.",
    ),
    Sample(
        "qwen3-coder",
        "<function=weather><parameter=city>7</parameter><parameter=metric>True</parameter>"
        "<parameter=more>\n['x', None]\n</parameter><parameter=odd>a < b</parameter></function></tool_call>",
        [("weather", {"city": "7", "metric": True, "more": ["x", None], "odd": "a < b"})],
        loose=True,
    ),
    Sample(
        "seed",
        "<seed:tool_call>\n<function=weather>\n<parameter=city>Oslo</parameter>\n</function>\n</seed:tool_call>",
        [OSLO],
    ),
    Sample("harmony", _HARMONY, [OSLO]),
    Sample(
        "harmony",
        f"<|channel|>analysis<|message|>Rain?<|end|><|start|>assistant{_HARMONY}",
        [OSLO],
        thought="Rain?",
    ),
    Sample(
        "harmony",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look."
        f"<|end|><|start|>assistant{_FINAL}",
        [],
        "I look.It rains.",
        thought="Hm.",
    ),
    Sample(
        "harmony",
        ' to=functions.weather<|channel|>commentary json<|message|>{"city": "Oslo"}',
        [OSLO],
        loose=True,
    ),
    Sample("harmony", "Without channels.<|return|>", [], "Without channels.", loose=True),
]


class Said(NamedTuple):
    """What an answer's parts say, joined."""

    text: str
    thought: str
    calls: list[tuple[str, str]]  # name, arguments


def joined(parts: list[Part]) -> Said:
    text, thought, calls = "", "", []
    for part in parts:
        if isinstance(part, Text):
            text += part.text
        elif isinstance(part, Thought):
            thought += part.text
        elif isinstance(part, CallStart):
            assert part.index == len(calls)
            calls.append((part.name, ""))
        elif isinstance(part, CallArguments):
            assert part.index == len(calls) - 1
            calls[-1] = (calls[-1][0], calls[-1][1] + part.text)
    return Said(text, thought, calls)


def read(reader: Reader, *pieces: str) -> Said:
    parts = [part for piece in pieces for part in reader.push(piece)]
    return joined(parts + reader.finish())
