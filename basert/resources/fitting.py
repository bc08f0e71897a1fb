"""Conversations too long for a model, without their oldest turns. Knows chat's messages, no tokens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from basert.errors import ContextLengthExceeded
from basert.resources.generating import Run
from basert.schema.chat import ChatRequest, DeveloperMessage, Message, SystemMessage, UserMessage


async def run_that_fits(request: ChatRequest, plan: Callable[[ChatRequest], Awaitable[Run]]) -> Run:
    """Plan the request; if it is too long, as much of its end as fits.

    Raises ContextLengthExceeded if not even what the user said last does.

    What is left begins with a user's message. How much that can be is searched for by halves: each attempt
    renders and tokenises, and there may be thousands of messages.
    """
    try:
        return await plan(request)
    except ContextLengthExceeded as error:
        told = error
    starts = [n for n, one in enumerate(request.messages) if n and isinstance(one, UserMessage)]
    run, low, high = None, 0, len(starts)
    while low < high:
        middle = (low + high) // 2
        shorter = msgspec.structs.replace(request, messages=_since(request.messages, starts[middle]))
        try:
            run, high = await plan(shorter), middle
        except ContextLengthExceeded as error:
            told, low = error, middle + 1
    if run is None:
        raise told
    return run


def _since(messages: list[Message], start: int) -> list[Message]:
    """With what the system says before it."""
    kept = [one for one in messages[:start] if isinstance(one, SystemMessage | DeveloperMessage)]
    return [*kept, *messages[start:]]
