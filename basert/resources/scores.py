"""Tokens and their log-probabilities as completion answers name them. Knows no request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from basert import schema
from basert.messages import TokenLogprob
from basert.schema import chat
from basert.schema.extras import PromptLogprob, PromptLogprobs
from basert.text import TextModel

Namer = Callable[[int], str]


def token_name(text: TextModel, token: int) -> str:
    """A token as text; part of a character as OpenAI's completions write it, `bytes:\\xf0\\x9f`."""
    raw = text.token_bytes(token)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def escaped(text: TextModel, token: int) -> str:
    """A token as text, with escapes where it is part of a character, as chat writes it."""
    return text.token_bytes(token).decode("utf-8", "backslashreplace")


def namer(name: Callable[[TextModel, int], str], text: TextModel, *, as_ids: bool | None) -> Namer:
    """What tokens are called: by `name`, or (as_ids) as vLLM's `return_tokens_as_token_ids` has it."""
    return "token_id:{}".format if as_ids else partial(name, text)


def chat_score(text: TextModel, name: Namer, scored: TokenLogprob) -> chat.TokenLogprob:
    """As chat tells it, and the Responses API."""

    def told(token: int, logprob: float) -> tuple[str, float, list[int]]:
        return name(token), schema.finite(logprob), list(text.token_bytes(token))

    top = [chat.TopLogprob(*told(token, logprob)) for token, logprob in scored.top]
    return chat.TokenLogprob(*told(scored.id, scored.logprob), top)


def prompt_logprobs(text: TextModel, scored: Sequence[TokenLogprob], top: int) -> PromptLogprobs:
    """vLLM's form: of every prompt token and the `top` likeliest in its place."""
    return [None, *(_alternatives(text, one, top) for one in scored)]


def _alternatives(text: TextModel, scored: TokenLogprob, top: int) -> dict[int, PromptLogprob]:
    ranked = [(token, logprob, rank) for rank, (token, logprob) in enumerate(scored.top[:top], 1)]
    told = {scored.id: (scored.id, scored.logprob, scored.rank)} | {one[0]: one for one in ranked}
    return {
        token: PromptLogprob(schema.finite(logprob), rank, text.token_bytes(token).decode("utf-8", "replace"))
        for token, logprob, rank in told.values()
    }


def offsets(text: TextModel, ids: Sequence[int], shown: str) -> list[int]:
    """The character of `shown`, the text of `ids`, at which each of them begins. A special token is part of
    it only where its name stands there."""
    decoder, at = text.decoder(skip_special=False), 0
    found: list[int] = []
    for token in ids:
        found.append(at)
        if not text.is_special(token) or shown.startswith(text.token_bytes(token).decode(), at):
            at += len(decoder.push([token]))
    return found
