"""What chat requests ask for beyond OpenAI's API, added to the answers of another writer.

The last message said again, why an answer stopped, token ids, and the prompt's log-probabilities.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import UNSET

from basert.http.models import Model
from basert.resources.responding import Answer, ChunkWriter
from basert.resources.scores import prompt_logprobs
from basert.schema.chat import ChatChunk, ChatCompletion, ChatRequest, ChunkChoice, Delta
from basert.schema.generation import Usage
from basert.text.streaming import Piece


class WithExtras(ChunkWriter):
    """A writer of chat answers."""

    def __init__(self, writer: ChunkWriter, request: ChatRequest, model: Model, prompt: list[int]) -> None:
        self._writer = writer
        self._request = request
        self._text = model.text
        self._prompt = prompt
        self._begun: set[int] = set()
        self._first: ChatChunk | None = None

    def chunks(self, piece: Piece) -> Iterable[ChatChunk]:
        chunks = list(self._writer.chunks(piece))
        begins = piece.index not in self._begun
        self._begun.add(piece.index)
        if self._first is None:
            self._first = chunks[0]
            chunks[0].prompt_token_ids = self._prompt if self._request.return_token_ids else UNSET
        if begins and self._request.echoed:
            chunks.insert(1, self._chunk(piece.index, self._request.echoed))
        return self._completed(chunks, piece)

    def _completed(self, chunks: list[ChatChunk], piece: Piece) -> Iterator[ChatChunk]:
        """With the piece's token ids in the last chunk, and why it stopped."""
        if self._request.return_token_ids and piece.ids:
            chunks = chunks or [self._chunk(piece.index, "")]
            chunks[-1].choices[0].token_ids = list(piece.ids)
        for chunk in chunks:
            if piece.stop is not None and chunk.choices[0].finish_reason:
                chunk.choices[0].stop_reason = piece.stop
            chunk.service_tier = "default" if self._request.service_tier else UNSET
            yield chunk

    def _chunk(self, index: int, content: str) -> ChatChunk:
        """One more, like those before."""
        assert self._first is not None
        choices = [ChunkChoice(index, Delta(content=content))]
        return msgspec.structs.replace(self._first, choices=choices, prompt_token_ids=UNSET)

    def usage_chunk(self, usage: Usage) -> ChatChunk | None:
        chunk: ChatChunk | None = self._writer.usage_chunk(usage)
        if chunk is not None and self._request.service_tier:
            chunk.service_tier = "default"
        return chunk

    def whole(self, answers: Sequence[Answer], usage: Usage) -> ChatCompletion:
        request = self._request
        completion: ChatCompletion = self._writer.whole(answers, usage)
        for choice, answer in zip(completion.choices, answers, strict=True):
            if request.echoed:
                choice.message.content = request.echoed + (choice.message.content or "")
            choice.stop_reason = UNSET if answer.stop is None else answer.stop
            choice.token_ids = answer.ids if request.return_token_ids else UNSET
        completion.service_tier = "default" if request.service_tier else UNSET
        completion.prompt_token_ids = self._prompt if request.return_token_ids else UNSET
        if request.prompt_logprobs is not None:
            scored = answers[0].prompt_scored
            completion.prompt_logprobs = prompt_logprobs(self._text, scored, request.prompt_logprobs)
        return completion
