"""What a tool-call format is. Each has a file of its own; the table is in basert.tools.formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from basert.text.parts import Reader


class Tool(NamedTuple):
    """A function that the model may call."""

    name: str
    parameters: dict[str, Any]  # JSON schema of its arguments, an object
    lenient: bool = False  # keywords that grammars do not know are not held to, instead of refused


# A marker's text as an atom of a llguidance Lark grammar: a JSON string, or <[id]> where it is one special
# token. llguidance takes every added token of the form <…> for special.
Marker = Callable[[str], str]


class Format(Protocol):
    """One way to write calls."""

    @property
    def name(self) -> str:
        """What `--tool-format` calls it."""

    @property
    def markers(self) -> tuple[str, ...]:
        """Special tokens that the reader has to see in the text."""

    @property
    def trigger(self) -> str:
        """What begins a group of calls in free text, or a whole answer that is one."""

    @property
    def separator(self) -> str | None:
        """What stands between two groups; None if one group holds all calls."""

    @property
    def whole(self) -> bool:
        """Whether calls are the whole answer, so that the trigger counts as its first character only."""

    def suits(self, template: str) -> bool:
        """Whether a chat template (its source) teaches this format."""

    def reader(self, tools: Sequence[Tool]) -> Reader:
        """A fresh reader for one answer."""

    def body(self, tools: Sequence[Tool], marker: Marker, *, parallel: bool) -> str:
        """What follows the trigger: the right-hand side of a Lark rule, and in further lines the rules that
        it needs. One call if not parallel. Raises InvalidRequest for a schema that it cannot hold to."""


@runtime_checkable
class Channelled(Protocol):
    """A format in which text and thoughts, too, are written in a form of their own."""

    def answer(self, tools: Sequence[Tool], marker: Marker, *, required: bool, final: str) -> str:
        """The whole answer, as in Format.body. final: the atom of what is said to the user in the end."""
