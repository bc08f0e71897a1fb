"""Progress of long operations: a tqdm bar on a terminal, a few plain lines elsewhere. Knows no operation.

    with progress.task("download", unit="B") as show:
        show(65_536, 92_871_040)

Everything goes to stderr, so that a command's own output stays fit for a pipe.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Show = Callable[[int, int], None]
"""show(done, total): called as often as one likes."""

LINE_SECONDS = 10.0  # between two lines of a task that no terminal shows


@contextmanager
def task(label: str, unit: str = "") -> Iterator[Show]:
    """Show one operation while the block runs: elapsed time, and how far it is once `show` was called."""
    style = _bar if sys.stderr.isatty() else _lines
    with style(label, unit) as show:
        yield show


def note(text: str) -> None:
    """One line on stderr that does not tear a bar apart."""
    tqdm.write(text, file=sys.stderr)


@contextmanager
def _bar(label: str, unit: str) -> Iterator[Show]:
    size = shutil.get_terminal_size()  # tqdm itself shows nothing where a terminal tells no size
    with tqdm(
        desc=label,
        unit=unit,
        unit_scale=unit == "B",
        bar_format="{desc}: {elapsed}",
        ncols=size.columns - 1,
        nrows=size.lines,
    ) as bar:

        def show(done: int, total: int) -> None:
            bar.total, bar.bar_format = total, None
            bar.update(done - bar.n)

        finished = threading.Event()
        threading.Thread(target=_tick, args=(bar, finished), daemon=True).start()
        try:
            yield show
        finally:
            finished.set()


def _tick(bar: tqdm[None], finished: threading.Event) -> None:
    """Keeps the elapsed time going while the operation has nothing to report."""
    while not finished.wait(1.0):
        bar.refresh()


@contextmanager
def _lines(label: str, unit: str) -> Iterator[Show]:
    start = last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            last = now
            of = f" of {amount(total, unit)}" if unit else ""
            note(f"{label}: {done / max(total, 1):.0%}{of}")

    note(f"{label} …")
    yield show
    note(f"{label}: done in {time.monotonic() - start:.1f} s")


def amount(count: float, unit: str) -> str:
    """A number for people: bytes scaled ("92.9MB"), anything else as it is ("120 tokens")."""
    return f"{tqdm.format_sizeof(count)}B" if unit == "B" else f"{count:g} {unit}"
