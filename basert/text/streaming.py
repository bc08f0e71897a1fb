"""What one choice says, step by step: an engine's tokens in, text that is safe to send out.

Joins the decoder, the stop strings and the reader that tells text from thoughts and tool calls, and lets
log-probabilities out with the text they belong to. Knows no wire format: the plain answer and the stream are
both made of these pieces.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from basert.messages import TokenLogprob, Tokens
from basert.text.parts import Part, PlainReader, Reader, text_of
from basert.text.stops import StopMatcher
from basert.text.tokenizer import TextModel


class Scored(msgspec.Struct, frozen=True):
    """A token's log-probability and the character of the choice's text at which it starts."""

    logprob: TokenLogprob
    offset: int
    is_stop: bool = False  # the end-of-sequence or stop token itself, which is no part of the text


class Piece(msgspec.Struct, frozen=True):
    """What one step added to one choice."""

    index: int
    parts: list[Part]
    tokens: int  # generated in this step
    finish: str | None = None  # "stop" | "length", on a choice's last piece
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
        min_tokens: int = 0,
        skip_special: bool = True,
        continues: bool = False,
        reader: Reader | None = None,
        markers: Sequence[str] = (),
    ) -> None:
        """min_tokens: before that stop strings do not count. reader: what tells thoughts and calls from text,
        markers: the special tokens that it has to see. continues: see TextModel.decoder."""
        self.index = index
        self._decoder = text.decoder(skip_special=skip_special, continues=continues, keep=markers)
        self._reader = reader or PlainReader()
        self._stops = StopMatcher(stops)
        self._min_tokens = min_tokens
        self._tokens = 0
        self._decoded = 0  # characters, those held back included
        self._sent = 0
        self._waiting: list[Scored] = []

    def push(self, step: Tokens) -> Piece:
        """The piece that this step makes; it has no parts while everything is held back."""
        self._tokens += len(step.tokens)
        text, stopped = self._stopped(self._decode(step))
        finish = "stop" if stopped else step.finish or None
        if finish and not stopped:
            text += self._stops.flush()
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
            scored=self._release(everything=bool(finish) and not stopped),
            prompt_scored=step.prompt_logprobs,
            cached=step.cached,
            reasoning=len(step.tokens) if thinking or self._reader.thinking else 0,
        )

    def _decode(self, step: Tokens) -> str:
        """Text of a step's tokens, but for the one that ended it; their log-probabilities begin to wait."""
        ended = step.finish == "stop"
        said = step.tokens[:-1] if ended else step.tokens
        if step.logprobs:
            text = "".join(self._decode_scored(*pair) for pair in zip(said, step.logprobs, strict=False))
        else:
            text = self._decoder.push(said)
            self._decoded += len(text)
        if ended and step.logprobs:
            self._waiting.append(Scored(step.logprobs[-1], self._decoded, is_stop=True))
        return text  # what the decoder still holds at the end is half a character, and never sent

    def _decode_scored(self, token: int, logprob: TokenLogprob) -> str:
        self._waiting.append(Scored(logprob, self._decoded))
        text = self._decoder.push([token])
        self._decoded += len(text)
        return text

    def _stopped(self, text: str) -> tuple[str, bool]:
        if self._tokens < self._min_tokens:
            return text, False
        return self._stops.push(text)

    def _release(self, *, everything: bool) -> list[Scored]:
        """The log-probabilities of tokens that begin in what was sent."""
        if not self._waiting:
            return []
        ready = [one for one in self._waiting if everything or one.offset < self._sent]
        self._waiting = self._waiting[len(ready) :]
        return ready
