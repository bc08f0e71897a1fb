"""The table of thought formats, and which one a chat template knows.

gpt-oss is not here: its thoughts are a channel among others, and basert.tools.harmony reads them.
"""

from __future__ import annotations

from basert.errors import ConfigError
from basert.reasoning.format import ThinkFormat

FORMATS: dict[str, ThinkFormat] = {
    one.name: one
    for one in (
        ThinkFormat("seed", "<seed:think>", "</seed:think>", opening="<seed:cot_budget_reflect>"),
        ThinkFormat("mistral", "[THINK]", "[/THINK]"),
        ThinkFormat("kimi", "◁think▷", "◁/think▷"),
        ThinkFormat("exaone", "<thought>", "</thought>"),
        ThinkFormat("think", "<think>", "</think>"),  # Qwen 3, DeepSeek R1, GLM, SmolLM3 and many others
        ThinkFormat(
            "granite",
            "Here is my thought process:",
            "Here is my response:",
            other_begins=("Here's my thought process:",),
            other_ends=("Here's my response:",),
        ),
    )
}


def find(template: str) -> ThinkFormat | None:
    """The format of the thoughts that a chat template (its source) knows; None if it knows none."""
    return next((one for one in FORMATS.values() if one.suits(template)), None)


def named(name: str) -> ThinkFormat:
    """The format of this name. Raises ConfigError."""
    if name not in FORMATS:
        raise ConfigError(f"There is no thought format {name!r}; there are {', '.join(FORMATS)}.")
    return FORMATS[name]
