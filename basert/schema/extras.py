"""What vLLM and llama-server add to a completion request: fields that mean something here, and those that are
refused as soon as they ask for anything. Fields that can change nothing are left to be ignored.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from basert.errors import InvalidRequest
from basert.schema.constraints import ConstraintFields
from basert.schema.drawing import Count

BadWord = Annotated[str, Meta(min_length=1, max_length=1000)]
Unsupported = Annotated[Any, Meta(description="Refused when it asks for anything.")]

SAMPLER = "This sampler is not supported"
BEAMS = "Beam search is not supported"

# Fields of which only some values can be served: those, and why not the others.
NEUTRAL: dict[str, tuple[tuple[Any, ...], str]] = {
    "mirostat": ((0,), SAMPLER),
    "typical_p": ((1,), SAMPLER),
    "tfs_z": ((1,), SAMPLER),
    "top_n_sigma": ((0, -1), SAMPLER),
    "dynatemp_range": ((0,), SAMPLER),
    "dry_multiplier": ((0,), SAMPLER),
    "xtc_probability": ((0,), SAMPLER),
    "length_penalty": ((1,), BEAMS),
    "early_stopping": ((False,), BEAMS),
    "use_beam_search": ((False,), BEAMS),
    "samplers": (([],), "Samplers have one order here, which docs/api.md tells"),
    "logits_processors": (([],), "A server runs no code of its clients"),
    "t_max_predict_ms": ((0, -1), "An answer is limited by its tokens, not by time"),
    "n_probs": ((0,), "Log-probabilities are asked for with 'logprobs'"),
}


class Extras(ConstraintFields, kw_only=True):
    """Null means absent."""

    # vLLM
    include_stop_str_in_output: bool | None = None
    spaces_between_special_tokens: bool | None = None  # there are none: tokens are their bytes
    allowed_token_ids: Annotated[list[Count], Meta(min_length=1)] | None = None
    bad_words: Annotated[list[BadWord], Meta(max_length=128)] | None = None
    prompt_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    truncate_prompt_tokens: (
        Annotated[int, Meta(ge=-1, le=2**31 - 1, description="-1: as many as leave room.")] | None
    ) = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    priority: (
        Annotated[int, Meta(ge=-(2**31), le=2**31 - 1, description="Above 0: after all others.")] | None
    ) = None
    cache_salt: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    use_beam_search: bool | None = None
    length_penalty: float | None = None
    early_stopping: Unsupported = None
    logits_processors: Unsupported = None
    # llama-server
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=10, description="repetition_penalty.")] | None = None
    cache_prompt: bool | None = None
    mirostat: int | None = None
    typical_p: float | None = None
    tfs_z: float | None = None
    top_n_sigma: float | None = None
    dynatemp_range: float | None = None
    dry_multiplier: float | None = None
    xtc_probability: float | None = None
    samplers: Unsupported = None
    t_max_predict_ms: int | None = None
    n_probs: int | None = None

    def check_neutral(self) -> None:
        """Raise InvalidRequest for a field that asks for what basert lacks."""
        for field, (neutral, why) in NEUTRAL.items():
            value = getattr(self, field)
            if value is not None and value not in neutral:
                raise InvalidRequest(f"{why}; leave '{field}' out.", param=field)


class PromptLogprob(msgspec.Struct):
    """One token that might have come at a place of the prompt; rank 1 is the likeliest."""

    logprob: float
    rank: int
    decoded_token: str


# For each token of a prompt, by token id: the best ones and the one that is there. The first follows nothing.
PromptLogprobs = list[dict[int, PromptLogprob] | None]
