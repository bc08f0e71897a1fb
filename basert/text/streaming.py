"""What one choice says, step by step: an engine's tokens in, text that is safe to send out.

Joins the decoder, the stop strings and the reader that tells text from thoughts and tool calls, and lets
log-probabilities out with the text they belong to. Knows no wire format: the plain answer and the stream are
both made of these pieces.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from basert.messages import TokenLogprob, Tokens
from basert.text.parts import Part, PlainReader, Reader, text_of
from basert.text.stops import StopMatcher
from basert.text.tokenizer import TextModel


class Scored(msgspec.Struct, frozen=True):
    """A token's log-probability and the character of the choice's text at which it starts."""

    logprob: TokenLogprob
    offset: int
    is_stop: bool = False  # the end-of-sequence or stop token itself, where that is no part of the text


class Piece(msgspec.Struct, frozen=True):
    """What one step added to one choice."""

    index: int
    parts: list[Part]
    tokens: int  # generated in this step
    finish: str | None = None  # "stop" | "length", on a choice's last piece
    stop: str | int | None = None  # the stop string or the request's stop id that ended it, with `finish`
    ids: Sequence[int] = ()  # this step's tokens
    scored: Sequence[Scored] = ()
    prompt_scored: Sequence[TokenLogprob] = ()  # with the first piece
    cached: int = 0  # prompt tokens from the prefix cache, with the first piece
    reasoning: int = 0  # of `tokens`, those that were thoughts

    @property
    def text(self) -> str:
        return text_of(self.parts)


class Choice:
    """Folds one engine request's steps into pieces. One with `finish` is the last: the rest is not wanted."""

    def __init__(
        self,
        index: int,
        text: TextModel,
        *,
        stops: Sequence[str] = (),
        stop_ids: Collection[int] = (),
        include_stop: bool = False,
        min_tokens: int = 0,
        skip_special: bool = True,
        continues: bool = False,
        reader: Reader | None = None,
        markers: Sequence[str] = (),
    ) -> None:
        """stop_ids: ends that the request named, to be told of. include_stop: what ended the text is part of
        it. min_tokens: before that stop strings do not count. reader: what tells thoughts and calls from
        text, markers: the special tokens that it has to see. continues: see TextModel.decoder."""
        self.index = index
        self._decoder = text.decoder(skip_special=skip_special, continues=continues, keep=markers)
        self._reader = reader or PlainReader()
        self._stops = StopMatcher(stops)
        self._stop_ids = stop_ids
        self._include_stop = include_stop
        self._min_tokens = min_tokens
        self._tokens = 0
        self._decoded = 0  # characters, those held back included
        self._sent = 0
        self._waiting: list[Scored] = []

    def push(self, step: Tokens) -> Piece:
        """The piece that this step makes; it has no parts while everything is held back."""
        free, checked = self._decode(step)
        text, stop = self._stops.push(checked)
        finish = step.finish or None if stop is None else "stop"
        if stop is not None:
            text += stop if self._include_stop else ""
        elif finish:
            text += self._stops.flush()
        text = free + text
        self._sent += len(text)
        thinking = self._reader.thinking
        parts = self._reader.push(text)
        if finish:
            parts += self._reader.finish()
        return Piece(
            index=self.index,
            parts=parts,
            tokens=len(step.tokens),
            finish=finish,
            stop=self._stop_id(step) if stop is None else stop,
            ids=step.tokens,
            scored=self._release(everything=bool(finish) and stop is None),
            prompt_scored=step.prompt_logprobs,
            cached=step.cached,
            reasoning=len(step.tokens) if thinking or self._reader.thinking else 0,
        )

    def _stop_id(self, step: Tokens) -> int | None:
        ended = step.finish == "stop" and step.tokens[-1] in self._stop_ids
        return step.tokens[-1] if ended else None

    def _decode(self, step: Tokens) -> tuple[str, str]:
        """Text of a step's tokens, that of those before min_tokens first; their log-probabilities begin to
        wait. What the decoder still holds at the end is half a character, and never sent."""
        free, checked = "", ""
        for i, token in enumerate(step.tokens):
            ends = step.finish == "stop" and i + 1 == len(step.tokens)
            text = self._decoder.push([token] if self._include_stop or not ends else [])
            if step.logprobs:
                self._waiting.append(Scored(step.logprobs[i], self._decoded, is_stop=ends and not text))
            self._tokens += 1
            self._decoded += len(text)
            if self._tokens < self._min_tokens:
                free += text
            else:
                checked += text
        return free, checked

    def _release(self, *, everything: bool) -> list[Scored]:
        """The log-probabilities of tokens that begin in what was sent."""
        if not self._waiting:
            return []
        ready = [one for one in self._waiting if everything or one.offset < self._sent]
        self._waiting = self._waiting[len(ready) :]
        return ready
