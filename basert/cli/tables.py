"""Plain tables and numbers for people."""

from __future__ import annotations

import time
from collections.abc import Sequence

from basert.progress import amount


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, two spaces apart."""
    lines = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def size(count: int) -> str:
    return amount(count, "B")


def age(created: int) -> str:
    """Time since a Unix second, in its largest unit."""
    seconds = max(0, int(time.time()) - created)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
