"""What chat and text completions have in common: sampling, stopping, streaming, usage.

Knows the wire and basert.messages' Sampling; no text, no engine.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from basert.errors import InvalidRequest
from basert.manifest import Generation
from basert.messages import Sampling
from basert.schema.drawing import Count
from basert.schema.extras import Extras
from basert.schema.parsing import given

StopString = Annotated[str, Meta(min_length=1, max_length=1000)]


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class GenerationRequest(Extras, kw_only=True):
    """Null means absent everywhere, and unknown fields are ignored."""

    model: str | None = None
    max_tokens: Count | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=64)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    skip_special_tokens: bool | None = None

    def check(self) -> None:
        """What no single field shows. Raises InvalidRequest."""
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest(
                "The 'stream_options' parameter is only allowed when 'stream' is true.",
                param="stream_options",
            )
        if self.prompt_logprobs is not None and self.stream:
            raise InvalidRequest(
                "The 'prompt_logprobs' parameter is not allowed when 'stream' is true.",
                param="prompt_logprobs",
            )
        self.check_neutral()

    def refuse(self, fields: Mapping[str, str]) -> None:
        """Raise InvalidRequest for a field that asks for what basert cannot do, with the reason."""
        for field, why in fields.items():
            value = getattr(self, field)
            if given(value):
                raise InvalidRequest(f"{why}; leave '{field}' out.", param=field)

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """Whether every chunk of the stream tells the usage so far."""
        return self.stream_options is not None and bool(self.stream_options.continuous_usage_stats)

    def sampling(self, defaults: Generation, vocab_size: int) -> Sampling:
        """How to draw: the request's word, else what the checkpoint's generation_config.json asks for, else
        OpenAI's default (temperature 1, no filter). A request without a seed gets one of its own.
        """
        for token in self.logit_bias or ():
            if not 0 <= token < vocab_size:
                raise InvalidRequest(
                    f"Invalid 'logit_bias': {token} is no token id; this model has 0 to {vocab_size - 1}.",
                    param="logit_bias",
                )
        return Sampling(
            temperature=_first(self.temperature, defaults.temperature, 1.0),
            top_p=max(_first(self.top_p, defaults.top_p, 1.0), 1e-6),  # 0 means the likeliest token alone
            top_k=max(_first(self.top_k, defaults.top_k, 0), 0),
            min_p=_first(self.min_p, defaults.min_p, 0.0),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=_first(
                self.repetition_penalty, self.repeat_penalty, defaults.repetition_penalty, 1.0
            ),
            seed=secrets.randbits(64) if self.seed is None else self.seed % 2**64,
            logit_bias=self.logit_bias or {},
        )


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


class PromptTokensDetails(msgspec.Struct):
    cached_tokens: int


class CompletionTokensDetails(msgspec.Struct):
    reasoning_tokens: int


class Usage(msgspec.Struct):
    """completion_tokens counts all that was generated, the end-of-sequence token included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails
