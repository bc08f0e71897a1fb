"""How tokens are drawn: the fields that every endpoint takes which generates, OpenAI's and those it lacks."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Bias = Annotated[float, Meta(ge=-100, le=100)]


class DrawingFields(msgspec.Struct, kw_only=True):
    """Null means absent: the checkpoint's word holds, else OpenAI's default."""

    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[int, Bias], Meta(max_length=1024)] | None = None
    # What OpenAI lacks and clients send anyway
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1, description="0 and -1 switch it off.")] | None = None
    min_p: Fraction | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None
    ignore_eos: bool | None = None
    min_tokens: Count | None = None
    stop_token_ids: Annotated[list[Count], Meta(max_length=256)] | None = None

    def drawing(self) -> dict[str, Any]:
        """All of these by name, for another request of the kind."""
        return {name: getattr(self, name) for name in DrawingFields.__struct_fields__}
