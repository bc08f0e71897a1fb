"""A request's way through an encoder: texts to ids, ids to the engine, its answers into one table.

Knows no wire form.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from falcon.asgi import Request

from basert.config import AppConfig
from basert.errors import InvalidRequest
from basert.frames import packed
from basert.http.limits import check_prompt_size, too_long
from basert.http.models import Model
from basert.manifest import Encoder
from basert.messages import Encode
from basert.resources.planning import beside, check_ids, context_of
from basert.resources.service import Service
from basert.schema.encoding import EncoderRequest
from basert.text.cutting import Cut, Ids, Text

if TYPE_CHECKING:
    from basert.vectors import Table


MEND = "shorten it, or have it cut with 'truncate_prompt_tokens': -1"
LONG = 50_000  # tokens of a request that take some 0.2 ms to pack


@dataclass(frozen=True)
class Inputs:
    """What is encoded; `param` names the field it came from, for errors."""

    texts: Sequence[Text] | Sequence[list[int]]
    param: str

    def check(self, config: AppConfig) -> None:
        """Raises InvalidRequest for too many, an empty one, or one that is far too long."""
        if len(self.texts) > config.max_inputs:
            raise InvalidRequest(
                f"Invalid '{self.param}': {len(self.texts)} inputs; the most taken here is "
                f"{config.max_inputs}.",
                param=self.param,
            )
        for number, text in enumerate(self.texts):
            for part in text if isinstance(text, tuple) else (text,):
                if not part:
                    raise InvalidRequest(f"Invalid '{self.named(number)}': it is empty.", param=self.param)
                if isinstance(part, str):
                    check_prompt_size(part, config, self.param, f"'{self.named(number)}'")

    def named(self, number: int) -> str:
        return f"{self.param}[{number}]" if len(self.texts) > 1 else self.param


@dataclass(frozen=True)
class Encoding:
    """One request's way through an encoder."""

    request: EncoderRequest
    model: Model
    encoder: Encoder
    service: Service
    req: Request

    @property
    def longest(self) -> int:
        """Tokens that the model takes, special ones included."""
        return context_of(self.model)

    async def ids(self, inputs: Inputs) -> Ids:
        """Raises InvalidRequest, ContextLengthExceeded for an input that is too long and not to be cut."""
        cut = self.request.cut(self.longest)
        return await self.beside(lambda: self.tokenized(inputs, cut))

    async def beside(self, work: Callable[[], Ids]) -> Ids:
        return await beside(work, self.model, self.req)

    def tokenized(self, inputs: Inputs, cut: Cut | None) -> Ids:
        """As `ids`; may take long. Token ids are taken as they are, but for a cut."""
        texts = [text for text in inputs.texts if not isinstance(text, list)]
        if texts:
            made = self.model.text.encode_batch(texts, cut, add_special=self.request.adds_special)
        else:
            lists = [text for text in inputs.texts if isinstance(text, list)]
            made = _given(lists, inputs, self.model, cut)
        self._check_lengths(made, inputs)
        return made

    def _check_lengths(self, made: Ids, inputs: Inputs) -> None:
        for number, ids in enumerate(made.ids):
            name = f"'{inputs.named(number)}'"
            if not ids:
                raise InvalidRequest(f"Invalid {name}: it has no tokens.", param=inputs.param)
            if len(ids) > self.longest:
                raise too_long(self.longest, str(len(ids)), inputs.param, name, MEND)

    async def answers(self, made: Ids) -> Table:
        """The model's, float32 [inputs, width]. Raises what the engine client raises, RequestTimeout."""
        from basert import vectors

        table = vectors.empty(len(made.ids), self.encoder.width)
        asked = await self._asked(made)
        started = self.req.context.started
        with self.service.engaged(self.model, made.tokens, started):
            try:
                async with (
                    asyncio.timeout(self.service.seconds_left(started)),
                    aclosing(self.model.engine.encode(asked)) as answers,
                ):
                    async for answer in answers:
                        vectors.fill(table, answer.indices, answer.data)
            except TimeoutError:
                raise self.service.took_too_long() from None
        return table

    async def _asked(self, made: Ids) -> Encode:
        inputs, types = made.ids, made.types if self.encoder.token_types else []
        if made.tokens > LONG:
            inputs, types = await asyncio.to_thread(lambda: ([*map(packed, inputs)], [*map(packed, types)]))
        return Encode(0, inputs, types, self.request.lane)


def _given(lists: Sequence[list[int]], inputs: Inputs, model: Model, cut: Cut | None) -> Ids:
    for number, ids in enumerate(lists):
        check_ids(ids, model.manifest.vocab_size, inputs.named(number))
    cut_off = 0
    if cut is not None:
        cut_off = sum(len(ids) > cut.most for ids in lists)
        start = [max(0, len(ids) - cut.most) if cut.from_start else 0 for ids in lists]
        lists = [ids[begin : begin + cut.most] for ids, begin in zip(lists, start, strict=True)]
    return Ids(list(lists), [[0] * len(ids) for ids in lists], cut_off)
