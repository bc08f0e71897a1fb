"""Requests whose grammar is being compiled: they wait here, beside the queue, and hold nothing up.

Knows messages and time limits. llguidance is imported with the first grammar: a start does not pay for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from basert.errors import InvalidRequest
from basert.messages import Failed, Submit

if TYPE_CHECKING:
    from concurrent.futures import Future

    from engines.constraints import Constraint
    from engines.grammars import Grammars

LONGEST = 10.0  # seconds that compiling a grammar may take, its wait for others included
MOST_WAITING = 64

_log = logging.getLogger(__name__)


class Compiled(NamedTuple):
    """A request that waits no more: its constraint, or why it has none."""

    peer: int
    submit: Submit
    result: Constraint | Failed


class _Waiting(NamedTuple):
    peer: int
    submit: Submit
    future: Future[Constraint]
    until: float


class Compiling:
    """The waiting room."""

    def __init__(
        self,
        tokenizer: Path,
        vocab_size: int,
        eos: frozenset[int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._new = partial(_grammars, tokenizer, vocab_size, eos)
        self._eos = eos
        self._grammars: Grammars | None = None
        self._waiting: list[_Waiting] = []
        self._clock = clock

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def compiled(self) -> int:
        return self._grammars.compiled if self._grammars else 0

    @property
    def reused(self) -> int:
        return self._grammars.reused if self._grammars else 0

    def add(self, peer: int, submit: Submit) -> Failed | None:
        """Begin to compile a request's grammar, or say why not."""
        assert submit.grammar is not None
        if not self._eos:
            return _failed(
                submit, "This model names no token that ends an answer, as constrained output needs."
            )
        if len(self._waiting) >= MOST_WAITING:
            return _busy(submit, f"{len(self._waiting)} requests wait for their grammars; try again later.")
        if self._grammars is None:
            self._grammars = self._new()
        future = self._grammars.constraint(submit.grammar.text)
        self._waiting.append(_Waiting(peer, submit, future, self._clock() + LONGEST))
        return None

    def cancel(self, peer: int, number: int | None = None) -> bool:
        """Forget a peer's request (or all of them); whether there was one."""
        left = [one for one in self._waiting if one.peer != peer or number not in (None, one.submit.id)]
        found = len(left) < len(self._waiting)
        for one in self._waiting:
            if one not in left:
                one.future.cancel()
        self._waiting = left
        return found

    def done(self) -> Iterator[Compiled]:
        """Take out those that need not wait any more."""
        for one in list(self._waiting):
            if one.future.done() or self._clock() > one.until:
                self._waiting.remove(one)
                yield Compiled(one.peer, one.submit, _result(one))


def _result(one: _Waiting) -> Constraint | Failed:
    if one.future.cancel():  # nobody has come to it
        return _busy(one.submit, "Other grammars are being compiled; try again later.")
    if not one.future.done():
        return _failed(one.submit, f"The grammar was not compiled within {LONGEST:g} s; make it simpler.")
    try:
        return one.future.result()
    except InvalidRequest as error:
        return _failed(one.submit, error.message)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # llguidance's panics are no Exceptions
        _log.error("a grammar could not be compiled: %s", error)
        return _failed(one.submit, "The grammar could not be compiled; write it in another way.")


def _busy(submit: Submit, why: str) -> Failed:
    return Failed(submit.id, "queue_full", why)


def _failed(submit: Submit, why: str) -> Failed:
    return Failed(submit.id, "invalid", why, submit.grammar.field if submit.grammar else "")


def _grammars(tokenizer: Path, vocab_size: int, eos: frozenset[int]) -> Grammars:
    from engines.grammars import Grammars

    return Grammars(tokenizer, vocab_size, eos)
