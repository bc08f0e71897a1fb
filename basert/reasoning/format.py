"""Thoughts between two markers, and the reader that tells them from the answer.

A thought is the first thing in an answer, or the prompt has already begun it; later markers are text.
"""

from __future__ import annotations

from dataclasses import dataclass

from basert.text.parts import Part, Reader, Thought
from basert.text.source import Reading, Source


@dataclass(frozen=True)
class ThinkFormat:
    """How a family of models marks its thoughts."""

    name: str
    begin: str
    end: str
    other_begins: tuple[str, ...] = ()  # written now and then instead
    other_ends: tuple[str, ...] = ()
    opening: str = ""  # what a template may write right after `begin`

    @property
    def markers(self) -> tuple[str, ...]:
        """Special tokens that the reader has to see in the text."""
        return (self.begin, self.end)

    @property
    def begins(self) -> tuple[str, ...]:
        return (self.begin, *self.other_begins)

    @property
    def ends(self) -> tuple[str, ...]:
        return (self.end, *self.other_ends)

    def suits(self, template: str) -> bool:
        """Whether a chat template (its source) knows these thoughts."""
        return self.begin in template or self.end in template

    def opened(self, prompt_tail: str) -> bool:
        """Whether the prompt ends within a thought, so that the answer begins there."""
        tail = prompt_tail.rstrip()
        return tail.endswith(self.begin) or bool(self.opening and tail.endswith(self.begin + self.opening))

    def closed(self, prompt_tail: str) -> bool:
        """Whether the prompt has ended the thought, so that none is to come."""
        return prompt_tail.rstrip().endswith(self.end)

    def reader(self, prompt_tail: str, inner: Reader) -> Reader:
        """A fresh reader for one answer to a prompt that ends so; `inner` reads what is no thought."""
        if self.closed(prompt_tail):
            return inner
        return ThinkingReader(self, inner, inside=self.opened(prompt_tail))


class ThinkingReader:
    """Reads the thought, and leaves everything after it to another reader."""

    def __init__(self, form: ThinkFormat, inner: Reader, *, inside: bool) -> None:
        """inside: the answer begins within a thought."""
        self._form = form
        self._inner = inner
        self._source = Source()
        self._source.thinking = inside
        self._script = self._read()
        self._over = False  # the thought, or there was none

    @property
    def thinking(self) -> bool:
        return self._inner.thinking if self._over else self._source.thinking

    def push(self, text: str) -> list[Part]:
        if self._over:
            return self._inner.push(text)
        self._source.feed(text)
        return self._run()

    def finish(self) -> list[Part]:
        self._source.ended = True
        parts = [] if self._over else self._run()
        return parts + self._inner.finish()

    def _run(self) -> list[Part]:
        parts: list[Part] = []
        for part in self._script:
            if part is None:
                return parts
            parts.append(part)
        self._over = True
        return parts + self._inner.push(self._source.text[self._source.at :])

    def _read(self) -> Reading[None]:
        source, form = self._source, self._form
        if not source.thinking:
            beginning = source.keep()
            yield from source.skip()
            source.thinking = bool((yield from source.take(*form.begins)))
            if not source.thinking:
                source.at = beginning
                return
            source.kept = False
        yield from source.skip("\n")
        yield from source.until(form.ends, Thought)
        source.thinking = False
        yield from source.skip("\n")
