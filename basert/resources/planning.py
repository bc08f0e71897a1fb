"""From a request's fields to a Plan: what both completion endpoints resolve alike. Knows no wire answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from secrets import token_hex
from typing import TypeVar

import msgspec
from falcon.asgi import Request

from basert.errors import ContextLengthExceeded, InvalidRequest
from basert.http.limits import room_after
from basert.http.models import Model
from basert.manifest import GENERATION, Generation
from basert.messages import Grammar
from basert.resources.generating import Plan
from basert.schema.generation import GenerationRequest

UNSAID = 512  # tokens that an answer is taken to have if its request does not say how many it may

T = TypeVar("T")


async def beside(work: Callable[[], T], model: Model, req: Request) -> T:
    """Do text work on a request, in a thread if its body is so long that the event loop would be held up."""
    quick = req.content_length is not None and model.text.is_quick(req.content_length)
    return work() if quick else await asyncio.to_thread(work)


def context_of(model: Model) -> int:
    """Tokens of prompt and answer together, as its engine was started."""
    return model.max_context if model.info is None else model.info.max_context


def plan(
    request: GenerationRequest,
    model: Model,
    prompts: Sequence[list[int]],
    *,
    param: str,
    wanted: int | None,
    default: int | None,
    logprobs: int,
    prompt_logprobs: int = -1,
    continues: bool = False,
    grammar: Grammar | None = None,
    n: int | None = None,
) -> Plan:
    """Check what depends on the model, and resolve defaults.

    wanted: max tokens as the request says it; default: else this many, or what the context has room for.
    param: the field the prompts came from, for errors. n: choices to draw, if not as the request says.
    Raises InvalidRequest, ContextLengthExceeded.
    """
    limits = [_limit(prompt, model, param, wanted, default) for prompt in prompts]
    drawn = n or request.n or 1
    vocabulary = model.manifest.vocab_size
    _check_drawing(request, max(limits), vocabulary)
    scored = -1 if request.prompt_logprobs is None else request.prompt_logprobs
    return Plan(
        prompts=prompts,
        max_tokens=limits,
        expected=drawn * sum(limits if wanted is not None else (min(limit, UNSAID) for limit in limits)),
        n=drawn,
        sampling=request.sampling(_defaults(model.bundle, model.digest), vocabulary),
        stops=request.stops,
        stop_ids=request.stop_token_ids or [],
        ignore_eos=bool(request.ignore_eos),
        min_tokens=request.min_tokens or 0,
        skip_special=request.skip_special_tokens is not False,
        include_stop=bool(request.include_stop_str_in_output),
        logprobs=logprobs,
        prompt_logprobs=max(prompt_logprobs, scored, -1 if min(limits) else 0),
        continues=continues,
        grammar=grammar,
        allowed_ids=request.allowed_token_ids or [],
        bad_words=_spellings(request.bad_words or [], model),
        priority=int((request.priority or 0) > 0),
        cache_salt=request.cache_salt or (token_hex() if request.cache_prompt is False else ""),
    )


def _check_drawing(request: GenerationRequest, most: int, vocab_size: int) -> None:
    """most: tokens that the longest answer may have. Raises InvalidRequest."""
    if (request.min_tokens or 0) > most:
        raise InvalidRequest(
            f"Invalid 'min_tokens': {request.min_tokens} is more than the {most} tokens allowed.",
            param="min_tokens",
        )
    check_ids(request.stop_token_ids or [], vocab_size, "stop_token_ids")
    check_ids(request.allowed_token_ids or [], vocab_size, "allowed_token_ids")


def kept(ids: list[int], request: GenerationRequest, model: Model, wanted: int | None) -> list[int]:
    """The end of a prompt, as much of it as `truncate_prompt_tokens` says. wanted: see plan."""
    most = request.truncate_prompt_tokens
    if most is None:
        return ids
    if most < 0:
        most = max(1, context_of(model) - max(1, wanted or 0))
    return ids[max(0, len(ids) - most) :]


def _spellings(words: Sequence[str], model: Model) -> list[list[int]]:
    """Token ids of each word, at the start of a text and after a space."""
    texts = [text for word in words for text in (word, " " + word.lstrip())]
    spelt = [tuple(model.text.encode(text, add_special=False)) for text in texts]
    return [list(ids) for ids in dict.fromkeys(spelt) if ids]


def check_ids(ids: Sequence[int], vocab_size: int, param: str) -> None:
    """Raises InvalidRequest for a number that is no token."""
    wrong = next((token for token in ids if not 0 <= token < vocab_size), None)
    if wrong is not None:
        raise InvalidRequest(
            f"Invalid '{param}': {wrong} is no token id; this model has 0 to {vocab_size - 1}.", param=param
        )


def _limit(prompt: list[int], model: Model, param: str, wanted: int | None, default: int | None) -> int:
    context = context_of(model)
    room = room_after(prompt, context, param)
    if wanted is not None and wanted > room:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {context} tokens. However, you requested "
            f"{len(prompt) + wanted} tokens ({len(prompt)} in the prompt, {wanted} for the completion). "
            "Please shorten either.",
            param=param,
        )
    if wanted is None and room == 0:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {context} tokens, and your prompt has {len(prompt)}: "
            "nothing is left for an answer. Please shorten it.",
            param=param,
        )
    return wanted if wanted is not None else min(room, room if default is None else default)


@lru_cache(maxsize=64)
def _defaults(bundle: Path, _digest: str) -> Generation:
    """What the checkpoint asks for where a request is silent."""
    path = bundle / GENERATION
    return msgspec.json.decode(path.read_bytes(), type=Generation) if path.is_file() else Generation()
