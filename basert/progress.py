"""Progress of long operations: a tqdm bar on a terminal, a few plain lines elsewhere. Knows no operation.

    with progress.task("download", total=92_871_040, unit="B") as advance:
        advance(65_536)

Everything goes to stderr, so that a command's own output stays fit for a pipe.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Advance = Callable[[float], None]

LINE_SECONDS = 10.0  # between two lines of a task that no terminal shows


@contextmanager
def task(label: str, total: float | None = None, unit: str = "it") -> Iterator[Advance]:
    """Show one operation while the block runs; `advance(n)` counts n more of `total` units (None: unknown)."""
    show = _bar if sys.stderr.isatty() else _lines
    with show(label, total, unit) as advance:
        yield advance


def note(text: str) -> None:
    """One line on stderr that does not tear a bar apart."""
    tqdm.write(text, file=sys.stderr)


@contextmanager
def _bar(label: str, total: float | None, unit: str) -> Iterator[Advance]:
    layout = None if total else "{desc}: {elapsed}"
    with tqdm(
        total=total, desc=label, unit=unit, unit_scale=unit == "B", bar_format=layout, dynamic_ncols=True, disable=False
    ) as bar:
        done = threading.Event()
        threading.Thread(target=_tick, args=(bar, done), daemon=True).start()
        try:
            yield lambda n: bar.update(n) and None
        finally:
            done.set()


def _tick(bar: tqdm[None], done: threading.Event) -> None:
    """Keeps the elapsed time going while the operation has nothing to count."""
    while not done.wait(1.0):
        bar.refresh()


@contextmanager
def _lines(label: str, total: float | None, unit: str) -> Iterator[Advance]:
    start = last = time.monotonic()
    count = 0.0

    def advance(n: float) -> None:
        nonlocal count, last
        count += n
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            last = now
            note(f"{label}: {count / total:.0%}" if total else f"{label}: {_amount(count, unit)}")

    note(f"{label} …")
    yield advance
    note(f"{label}: done in {time.monotonic() - start:.1f} s")


def _amount(count: float, unit: str) -> str:
    return f"{tqdm.format_sizeof(count)}{unit}" if unit == "B" else f"{count:g} {unit}"
