"""Stop strings over token borders. Knows text, no tokens."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Releases text up to the first stop string to be completed, never any part of it.

    A tail that may yet become a stop string is held back. Of two that end together the longer one counts.
    However the text is cut into pushes, what is released is the same.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """stops: no empty strings."""
        self._stops = stops
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """The text that is safe to send, and the stop string that ended it, if one did."""
        if not self._stops:
            return text, None
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self._held = ""
            end, at = min(found)
            return text[:at], text[at:end]
        safe = min(tail(text, stop) for stop in self._stops)
        self._held = text[safe:]
        return text[:safe], None

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held


def tail(text: str, stop: str) -> int:
    """Where the longest end of `text` that begins `stop` starts; len(text) if none does."""
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0 and not stop.startswith(text[at:]):
        at = text.find(stop[0], at + 1)
    return at if at >= 0 else len(text)
