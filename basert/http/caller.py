"""Who sent the request that is being answered, and what it has cost so far.

Found from everywhere below the app, also in the tasks that a request starts (a context variable); outside of
requests it is nobody in particular, who may do everything. Knows no header and no body.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from basert.errors import EngineFailed, Overloaded, Unavailable
from basert.http.limiting import Allowance
from basert.keys import ANYBODY, Key


class Caller:
    """Of one request: the app makes it first of all, its key is known once that was checked."""

    __slots__ = ("allowance", "key", "tokens")

    def __init__(self) -> None:
        self.key: Key = ANYBODY
        self.allowance: Allowance | None = None  # None: nothing is limited
        self.tokens = 0  # generated

    @contextmanager
    def reserved(self, prompt: int, expected: int) -> Iterator[None]:
        """Around a request's time with an engine. prompt: its tokens; expected: to be generated.

        Raises TokensExceeded, TooManyTokens.
        """
        if self.allowance is None:
            yield
            return
        before, amount = self.tokens, self.allowance.reserve(prompt, expected)
        try:
            yield
        except (EngineFailed, Overloaded, Unavailable):
            if self.tokens == before:
                prompt = 0  # nothing was done for it
            raise
        finally:
            self.allowance.settle(amount, prompt + self.tokens - before)


caller: ContextVar[Caller] = ContextVar("caller", default=Caller())  # noqa: B039  (its tokens: nobody reads them)


@contextmanager
def for_key(key: Key) -> Iterator[None]:
    """What is asked of the app's parts in this block is asked as whoever has that key."""
    who = Caller()
    who.key = key
    token = caller.set(who)
    try:
        yield
    finally:
        caller.reset(token)
