"""POST /v1/completions: request, answer and chunks (which have the same form)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from basert.errors import InvalidRequest
from basert.schema.extras import PromptLogprobs, Unsupported
from basert.schema.generation import GenerationRequest, Usage
from basert.schema.texts import Texts, listed

DEFAULT_MAX_TOKENS = 16  # OpenAI's
MAX_CHOICES = 2048


class CompletionRequest(GenerationRequest, kw_only=True):
    prompt: Texts
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=128, description="Choices to draw the n best from.")] | None = None
    suffix: Annotated[str, Meta(description="What follows the answer.")] | None = None
    add_special_tokens: bool | None = None
    n_predict: (
        Annotated[int, Meta(ge=-2, le=2**31 - 1, description="max_tokens; -1: all there is room for.")] | None
    ) = None
    prompt_embeds: Unsupported = None

    def check(self) -> None:
        super().check()
        self._check_best_of()
        if self.suffix and self.echo:
            raise InvalidRequest("Send either 'suffix' or 'echo', not both.", param="suffix")
        self.refuse({"prompt_embeds": "A prompt is text or token ids"})
        if len(self.prompts) * self.drawn > MAX_CHOICES:
            raise InvalidRequest(f"Invalid 'prompt': more than {MAX_CHOICES} choices in all.", param="prompt")

    def _check_best_of(self) -> None:
        if self.drawn < (self.n or 1):
            raise InvalidRequest(
                f"Invalid 'best_of': {self.drawn} choices are fewer than the {self.n} that 'n' asks for.",
                param="best_of",
            )
        if self.stream and self.drawn > (self.n or 1):
            raise InvalidRequest(
                "The best of several choices are known at their end; leave 'best_of' or 'stream' out.",
                param="best_of",
            )

    @property
    def adds_special(self) -> bool:
        """Whether the tokenizer puts around a text what it is made to put there."""
        return self.add_special_tokens is not False

    @property
    def drawn(self) -> int:
        """Choices to draw for each prompt."""
        return self.best_of or self.n or 1

    @property
    def wanted_tokens(self) -> int | None:
        """Tokens asked for at most; None where the request does not say."""
        return self.n_predict if self.max_tokens is None and not self.unlimited else self.max_tokens

    @property
    def unlimited(self) -> bool:
        """Whether as many tokens as there is room for are wanted."""
        return self.max_tokens is None and (self.n_predict or 0) < 0

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """All prompts, in order, of one kind. Raises InvalidRequest when kinds are mixed."""
        return listed(self.prompt, "prompt")

    @property
    def drawn_logprobs(self) -> int:
        """Log-probabilities to ask the engine for: choices are compared by them, too."""
        return max(self.wanted_logprobs, 0 if self.drawn > (self.n or 1) else -1)

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
    stop_reason: str | int | UnsetType = UNSET  # the stop string or stop token id that ended it
    prompt_logprobs: PromptLogprobs | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    token_ids: list[int] | UnsetType = UNSET


class Completion(msgspec.Struct):
    """An answer, or a chunk of one; a chunk has `usage` only if stream_options.include_usage asks for it."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET
