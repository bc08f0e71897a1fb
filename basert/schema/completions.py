"""POST /v1/completions: request, answer and chunks (which have the same form)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from basert.errors import InvalidRequest
from basert.schema.generation import GenerationRequest, Usage

DEFAULT_MAX_TOKENS = 16  # OpenAI's
MAX_CHOICES = 2048


class CompletionRequest(GenerationRequest, kw_only=True):
    prompt: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    best_of: int | None = None
    suffix: str | None = None
    add_special_tokens: bool | None = None

    def check(self) -> None:
        super().check()
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise InvalidRequest("'best_of' is not supported; leave it out.", param="best_of")
        if self.suffix:
            raise InvalidRequest("This model cannot insert text; leave 'suffix' out.", param="suffix")
        if len(self.prompts) * (self.n or 1) > MAX_CHOICES:
            raise InvalidRequest(f"Invalid 'prompt': more than {MAX_CHOICES} choices in all.", param="prompt")

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """All prompts, in order, of one kind. Raises InvalidRequest when kinds are mixed."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        texts = [one for one in self.prompt if isinstance(one, str)]
        ids = [one for one in self.prompt if isinstance(one, int)]
        lists = [one for one in self.prompt if isinstance(one, list)]
        if len(self.prompt) == len(ids):
            return [ids]
        if len(self.prompt) not in (len(texts), len(lists)):
            raise InvalidRequest(
                "Invalid 'prompt': expected a string, strings, token ids or lists of token ids.",
                param="prompt",
            )
        return texts or lists

    @property
    def wanted_logprobs(self) -> int:
        """As basert.messages.Submit has it: -1 for none."""
        return -1 if self.logprobs is None else self.logprobs


class CompletionLogprobs(msgspec.Struct):
    """With `echo` the prompt's tokens come first; the very first token has no log-probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]  # characters from the start of `text`


class CompletionChoice(msgspec.Struct):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class Completion(msgspec.Struct):
    """An answer, or a chunk of one; a chunk has `usage` only if stream_options.include_usage asks for it."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET
