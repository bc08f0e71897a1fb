"""Grammars over token ids: which tokens may come next. Knows llguidance, no logits and no queue.

The mask of a sequence's next token is computed in another thread, while the graph runs; llguidance gives up
the interpreter lock for it. It counts what a grammar costs and gives up at a limit, but that does not bound
every step (one of `(a{1000}){1000}` was seen to take 0.7 s), so whoever waits for a mask waits briefly, and
tries again after the next step.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from basert.errors import InvalidRequest

PATIENCE = 0.02  # seconds that a step waits for a mask
LONGEST_MASK = 2.0  # seconds that one may take in all
BARRED = -1e32  # added to the logits of what a grammar forbids: worse than any other bar, and a number

FEW = 64  # tokens: more of them are no beginnings of one

Penalty = NDArray[np.float32]
Spell = Callable[[int], bytes]  # a token's text


class Found(NamedTuple):
    """What a grammar says of the next token, as it is kept."""

    bits: bytes  # a bit for each token of the vocabulary, little-endian: it is allowed
    only: int  # the one token that is allowed; -1 where there are several


class Next(NamedTuple):
    """What a grammar says of the next token, as it is drawn; `only` as in Found."""

    penalty: Penalty  # [vocab]: 0 for what is allowed, else BARRED
    only: int


class Constraint:
    """One sequence's way through its grammar."""

    def __init__(self, matcher: LLMatcher, first: Found, spell: Spell) -> None:
        """first: what the grammar says at its start."""
        self._matcher = matcher
        self._spell = spell
        self._next = _next(first)
        self._accepted = -1  # the token drawn last, whose followers nobody looks for yet
        self._asked = 0.0  # when others were asked to look for them
        self._answered: threading.Event | None = None  # they are found, or cannot be
        self._error: InvalidRequest | None = None

    def next(self) -> Next | None:
        """What may come now; None while that is still being found out. Raises InvalidRequest when the grammar
        turns out to be too costly."""
        if self.behind:
            self.advance()
        elif self._answered is not None and not self._answered.wait(PATIENCE):
            if time.monotonic() - self._asked > LONGEST_MASK:
                raise _too_costly(f"a token took more than {LONGEST_MASK:g} s")
            return None
        self._answered = None
        if self._error is not None:
            raise self._error
        return self._next

    def forced(self, most: int) -> list[int]:
        """Tokens that will come next, `most` at most, where the grammar leaves no choice of text; it may
        leave one of how that is cut into tokens, so that this is a guess. None while others look for them."""
        if self.behind:
            self.advance()
        if self._error is not None or not (self._answered is None or self._answered.is_set()):
            return []
        return _forced(self._matcher.deep_copy(), self._spell, self._next.penalty == 0, most)

    def accept(self, token: int) -> None:
        """The token was drawn. What may follow is found out beside what comes now (see `Ahead`), or, where it
        is needed at once, by `next` itself."""
        self._accepted = token

    @property
    def behind(self) -> bool:
        """Whether what may follow the last token is still to be looked for, and nobody does."""
        return self._accepted >= 0 and self._answered is None

    def ask(self) -> threading.Event:
        """Another thread is going to `advance`, and set this when it has."""
        self._asked, self._answered = time.monotonic(), threading.Event()
        return self._answered

    def advance(self) -> None:
        """Find out what may follow the accepted token."""
        token, self._accepted = self._accepted, -1
        try:
            if not self._matcher.consume_token(token):
                raise _too_costly(self._matcher.get_error())
            self._next = _next(look(self._matcher))
        except InvalidRequest as error:
            self._error = error
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # llguidance's panics are no Exceptions
            self._error = _too_costly(str(error))


class Ahead:
    """Looks ahead for many sequences, in threads, while the graph runs. One grammar that takes long keeps one
    thread; the others share what is left."""

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads, "masks")
        self._threads = threads

    def look(self, constraints: Sequence[Constraint]) -> None:
        """Begin to find out what may follow in each of these; returns at once."""
        queue = deque((one, one.ask()) for one in constraints)
        for _ in range(min(self._threads, len(queue))):
            self._pool.submit(_work_off, queue)


def _work_off(queue: deque[tuple[Constraint, threading.Event]]) -> None:
    with contextlib.suppress(IndexError):  # another thread took the last one
        while True:
            constraint, answered = queue.popleft()
            constraint.advance()
            answered.set()


def look(matcher: LLMatcher) -> Found:
    """What a matcher allows now. Raises InvalidRequest when it has given up."""
    bits = matcher.compute_bitmask()
    if matcher.is_error():
        raise _too_costly(matcher.get_error())
    number = int.from_bytes(bits, "little")
    only = number.bit_length() - 1 if number.bit_count() == 1 else -1
    return Found(bits, only)


def _next(found: Found) -> Next:
    penalty = _unpacked(found.bits).astype(np.float32)
    penalty -= 1
    penalty *= -BARRED
    return Next(penalty, found.only)


def _unpacked(bits: bytes) -> NDArray[np.uint8]:
    return np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")


def _forced(matcher: LLMatcher, spell: Spell, allowed: NDArray[Any], most: int) -> list[int]:
    """The longest token, as long as all others that are allowed are beginnings of it. llguidance's own answer
    to this does not come where the forced text has no end (see engines.grammars)."""
    tokens: list[int] = []
    until = time.monotonic() + PATIENCE
    while len(tokens) < most and np.count_nonzero(allowed) <= FEW and time.monotonic() < until:
        spelt = {int(token): spell(int(token)) for token in np.flatnonzero(allowed)}
        longest = max(spelt, key=lambda token: len(spelt[token]), default=-1)
        if longest < 0 or not all(spelt[longest].startswith(text) for text in spelt.values()):
            break
        if not matcher.consume_token(longest) or matcher.is_stopped():
            break
        tokens.append(longest)
        allowed = _unpacked(matcher.compute_bitmask())
    return tokens


def _too_costly(why: str) -> InvalidRequest:
    return InvalidRequest(f"The grammar asks for too much work; make it simpler ({line(why)}).")


def line(error: str) -> str:
    """The part of llguidance's message that is about the grammar."""
    return error.split("<state>")[0].strip().splitlines()[0][:300] if error.strip() else "no reason given"
