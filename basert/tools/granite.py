"""Granite 3, and Phi-4-mini, which closes the list with <|/tool_call|>:

<|tool_call|>[{"name": "weather", "arguments": {"city": "Oslo"}}]
"""

from __future__ import annotations

from basert.tools.json_format import JsonFormat

GRANITE = JsonFormat(
    "granite", ["<|tool_call|>", "<tool_call>"], "", lambda template: "<|tool_call|>" in template, listed=True
)
PHI = JsonFormat(
    "phi4-mini",
    ["<|tool_call|>"],
    "<|/tool_call|>",
    lambda template: "<|/tool_call|>" in template,
    listed=True,
)
