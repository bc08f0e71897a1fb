"""The table of tool-call formats, and which one a chat template teaches."""

from __future__ import annotations

from basert.errors import ConfigError
from basert.tools.deepseek import Deepseek, DeepseekFenced
from basert.tools.format import Format
from basert.tools.function_xml import FunctionXml
from basert.tools.gemma import Gemma
from basert.tools.granite import GRANITE, PHI
from basert.tools.harmony import Harmony
from basert.tools.hermes import HERMES
from basert.tools.llama3 import Llama3
from basert.tools.mistral import Mistral, MistralList
from basert.tools.pythonic import Pythonic

# The first that suits is taken: those whose marks others have, too, come later.
FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Harmony(),
        DeepseekFenced(),
        Deepseek(),
        Mistral(),
        MistralList(),
        Gemma(),
        FunctionXml("seed", "<seed:tool_call>", "</seed:tool_call>", pad=""),
        FunctionXml("qwen3-coder", "<tool_call>", "</tool_call>", pad="\n"),
        PHI,
        GRANITE,
        HERMES,
        Pythonic(),
        Llama3(),
    )
}
GENERIC: Format = HERMES  # what basert.tools.generic teaches models whose template knows no tools


def find(template: str) -> Format | None:
    """The format that a chat template (its source) teaches; None if it knows no tools."""
    return next((one for one in FORMATS.values() if one.suits(template)), None)


def named(name: str) -> Format:
    """The format of this name. Raises ConfigError."""
    if name not in FORMATS:
        raise ConfigError(f"There is no tool-call format {name!r}; there are {', '.join(FORMATS)}.")
    return FORMATS[name]
