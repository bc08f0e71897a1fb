"""Hermes 2 Pro, Qwen 2.5 and 3, Granite 4, SmolLM3 and many others:

<tool_call>
{"name": "weather", "arguments": {"city": "Oslo"}}
</tool_call>
"""

from __future__ import annotations

from basert.tools.json_format import JsonFormat

BEGIN, END = "<tool_call>", "</tool_call>"
HERMES = JsonFormat("hermes", [BEGIN], END, lambda template: BEGIN in template, listed=False, space="\n")
