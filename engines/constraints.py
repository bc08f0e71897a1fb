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
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from basert.errors import InvalidRequest

PATIENCE = 0.02  # seconds that a step waits for a mask
LONGEST_MASK = 2.0  # seconds that one may take in all
BARRED = -1e32  # added to the logits of what a grammar forbids: worse than any other bar, and a number

FEW = 64  # tokens: more of them are no beginnings of one

Penalty = NDArray[np.float32]


class Found(NamedTuple):
    """What a grammar says of the next token, as it is kept."""

    bits: bytes  # a bit for each token of the vocabulary, little-endian: it is allowed
    only: int  # the one token that is allowed; -1 where there are several


class Next(NamedTuple):
    """What a grammar says of the next token, as it is drawn; `only` as in Found."""

    penalty: Penalty  # [vocab]: 0 for what is allowed, else BARRED
    only: int


class _Search:
    """For what may follow a token: whoever claims it first, does it."""

    def __init__(self, token: int) -> None:
        self.token = token
        self.done = threading.Event()
        self.begun = 0.0  # time.monotonic, once it is claimed
        self._free = threading.Lock()

    def claim(self) -> bool:
        """Whether it is the caller's to do."""
        claimed = self._free.acquire(blocking=False)
        if claimed:
            self.begun = time.monotonic()
        return claimed


class Constraint:
    """One sequence's way through its grammar."""

    def __init__(self, matcher: LLMatcher, first: Found, tokenizer: LLTokenizer) -> None:
        """first: what the grammar says at its start."""
        self._matcher = matcher
        self._tokenizer = tokenizer
        self._last: list[int] = []  # the token accepted last, if there is one
        self._next = _next(first)
        self._search: _Search | None = None  # for what may follow the token drawn last
        self._error: InvalidRequest | None = None

    def accept(self, token: int) -> None:
        """The token was drawn. What may follow is found out by `look_ahead`, in another thread, or else when
        it is asked for."""
        self._search = _Search(token)
        self._last = [token]

    def look_ahead(self) -> None:
        """Find out what may follow the token drawn last, unless somebody does or has."""
        search = self._search
        if search is not None and search.claim():
            self._find(search)

    def next(self) -> Next | None:
        """What may come now; None while another thread is still finding it out. Raises InvalidRequest when
        the grammar turns out to be too costly."""
        self.look_ahead()
        search = self._search
        if search is not None and not search.done.wait(PATIENCE):
            if time.monotonic() - search.begun > LONGEST_MASK:
                raise _too_costly(f"a token took more than {LONGEST_MASK:g} s")
            return None
        self._search = None
        if self._error is not None:
            raise self._error
        return self._next

    def forced(self, most: int) -> list[int]:
        """Tokens that will come next, `most` at most, where the grammar leaves no choice of text: as the
        tokenizer cuts it, which is a guess, for a model may cut it in another way. None while others look."""
        self.look_ahead()
        if self._error is not None or not (self._search is None or self._search.done.is_set()):
            return []
        text = self._forced_text(self._matcher.deep_copy(), self._next.penalty == 0, most)
        return self._tokenizer.tokenize_partial(text, self._last)[0][:most] if text else []

    def _forced_text(self, matcher: LLMatcher, allowed: NDArray[Any], most: int) -> bytes:
        """What the longest token says, as long as all others that are allowed are beginnings of it; and so
        on. llguidance's own answer does not come where the text has no end (see engines.grammars)."""
        text, until = b"", time.monotonic() + PATIENCE
        for _ in range(most):
            if np.count_nonzero(allowed) > FEW or time.monotonic() > until:
                break
            spelt = {
                int(token): self._tokenizer.decode_bytes([int(token)]) for token in np.flatnonzero(allowed)
            }
            longest = max(spelt, key=lambda token: len(spelt[token]), default=-1)
            if longest < 0 or not all(spelt[longest].startswith(one) for one in spelt.values()):
                break
            if not matcher.consume_token(longest) or matcher.is_stopped():
                break
            text += spelt[longest]
            allowed = _unpacked(matcher.compute_bitmask())
        return text

    def _find(self, search: _Search) -> None:
        try:
            if not self._matcher.consume_token(search.token):
                raise _too_costly(self._matcher.get_error())
            self._next = _next(look(self._matcher))
        except InvalidRequest as error:
            self._error = error
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # llguidance's panics are no Exceptions
            self._error = _too_costly(str(error))
        finally:
            search.done.set()


class Ahead:
    """Looks ahead for many sequences, in threads, while the graph runs. What no thread has come to when it is
    wanted is done by who wants it, so that a grammar that takes long holds up no other."""

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads, "masks")
        self._threads = threads

    def look(self, constraints: Iterable[Constraint]) -> None:
        """Begin to find out what may follow in each of these; returns at once."""
        queue = deque(constraints)
        for _ in range(min(self._threads, len(queue))):
            self._pool.submit(_work_off, queue)


def _work_off(queue: deque[Constraint]) -> None:
    with contextlib.suppress(IndexError):  # another thread took the last one
        while True:
            queue.popleft().look_ahead()


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


def _too_costly(why: str) -> InvalidRequest:
    return InvalidRequest(f"The grammar asks for too much work; make it simpler ({line(why)}).")


def line(error: str) -> str:
    """The part of llguidance's message that is about the grammar."""
    return error.split("<state>")[0].strip().splitlines()[0][:300] if error.strip() else "no reason given"
