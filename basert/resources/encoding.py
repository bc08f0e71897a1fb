"""A request's way through an encoder: texts to ids, ids to the engine, its answers into one table.

Knows no wire form.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from falcon.asgi import Request

from basert.config import AppConfig
from basert.errors import InvalidRequest
from basert.frames import packed
from basert.http.limits import check_prompt_size, too_long
from basert.http.models import Model
from basert.messages import Encode
from basert.resources.planning import check_ids, context_of
from basert.resources.service import Service
from basert.schema.encoding import EncoderRequest
from basert.text.cutting import Cut, Ids, Text

if TYPE_CHECKING:
    from basert.vectors import Table


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


def tokenized(inputs: Inputs, model: Model, cut: Cut | None, *, add_special: bool) -> Ids:
    """May take long. Token ids are taken as they are, but for a cut.

    Raises InvalidRequest, ContextLengthExceeded for an input that is too long.
    """
    texts = [text for text in inputs.texts if not isinstance(text, list)]
    if texts:
        made = model.text.encode_batch(texts, cut, add_special=add_special)
    else:
        made = _given([text for text in inputs.texts if isinstance(text, list)], inputs, model, cut)
    longest = context_of(model)
    for number, ids in enumerate(made.ids):
        if not ids:
            raise InvalidRequest(f"Invalid '{inputs.named(number)}': it has no tokens.", param=inputs.param)
        if len(ids) > longest:
            raise too_long(longest, str(len(ids)), inputs.param, f"'{inputs.named(number)}'")
    return made


def _given(lists: Sequence[list[int]], inputs: Inputs, model: Model, cut: Cut | None) -> Ids:
    for number, ids in enumerate(lists):
        check_ids(ids, model.manifest.vocab_size, inputs.named(number))
    cut_off = 0
    if cut is not None:
        cut_off = sum(len(ids) > cut.most for ids in lists)
        start = [max(0, len(ids) - cut.most) if cut.from_start else 0 for ids in lists]
        lists = [ids[begin : begin + cut.most] for ids, begin in zip(lists, start, strict=True)]
    return Ids(list(lists), [[0] * len(ids) for ids in lists], cut_off)


async def encoded(made: Ids, model: Model, request: EncoderRequest, service: Service, req: Request) -> Table:
    """The model's answers, float32 [inputs, width]. Raises what the engine client raises, RequestTimeout."""
    from basert import vectors

    encoder = model.manifest.encoder
    assert encoder is not None
    table = vectors.empty(len(made.ids), encoder.width)
    inputs, types = made.ids, made.types if encoder.token_types else []
    if made.tokens > LONG:
        inputs, types = await asyncio.to_thread(lambda: ([*map(packed, inputs)], [*map(packed, types)]))
    asked = Encode(0, inputs, types, request.lane)
    started = req.context.started
    with service.engaged(model, made.tokens, started):
        try:
            async with (
                asyncio.timeout(service.seconds_left(started)),
                aclosing(model.engine.encode(asked)) as answers,
            ):
                async for answer in answers:
                    vectors.fill(table, answer.indices, answer.data)
        except TimeoutError:
            raise service.took_too_long() from None
    return table
