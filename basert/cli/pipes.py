"""Standard output as pipes have it: nobody may read any more, the disk may be full. Knows no command."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

import click

from basert.errors import BasertError


@contextlib.contextmanager
def piped() -> Iterator[None]:
    """Around a command that writes to a pipe: it ends as the shell expects, without a traceback."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _die_of(signal.SIGPIPE)
    except KeyboardInterrupt:
        _die_of(signal.SIGINT)


def write(text: str, what: str) -> None:
    """Raises BrokenPipeError when nobody reads any more, BasertError when stdout takes nothing.

    what: the thing written, for that error.
    """
    try:
        click.echo(text, nl=False)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BasertError(f"the {what} cannot be written: {error.strerror}.") from None


def _die_of(number: signal.Signals) -> NoReturn:
    """End as the shell expects of a process that this signal ended."""
    sys.stdout = None  # or the interpreter would try to flush it once more
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise SystemExit(128 + number)
