"""What an answer is made of: text, thoughts and tool calls, as they come. Knows no wire form and no tokens.

A Reader tells them apart in a choice's text. However the text is cut into pushes, the same things are said:
the parts of one kind (and of one call) joined are the same.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class Text(msgspec.Struct, frozen=True):
    """What the model says to the user."""

    text: str


class Thought(msgspec.Struct, frozen=True):
    """What it says to itself before (`reasoning_content`)."""

    text: str


class CallStart(msgspec.Struct, frozen=True):
    """A tool call begins: its number within the answer, and the function's name."""

    index: int
    name: str


class CallArguments(msgspec.Struct, frozen=True):
    """More of a call's arguments, which joined are one JSON object (unless the answer was cut off)."""

    index: int
    text: str


Part = Text | Thought | CallStart | CallArguments


class Reader(Protocol):
    """Reads one choice's text."""

    @property
    def thinking(self) -> bool:
        """Whether what comes next is a thought."""

    def push(self, text: str) -> list[Part]:
        """What this text completes. A tail that may yet turn out to be a marker is held back."""

    def finish(self) -> list[Part]:
        """What was held back, when no more text comes."""


class PlainReader:
    """All of it is text."""

    thinking = False

    def push(self, text: str) -> list[Part]:
        return [Text(text)] if text else []

    def finish(self) -> list[Part]:
        return []


def text_of(parts: list[Part]) -> str:
    """What is said to the user, joined."""
    return "".join(part.text for part in parts if isinstance(part, Text))
