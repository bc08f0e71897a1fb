"""The buckets of an encoder: (rows, tokens), the only shapes that its graph is run with."""

from __future__ import annotations

import re
from pathlib import Path

from basert.errors import ExportError

LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
ROWS = (1, 2, 4, 8, 16, 32)
BUDGET = 1024  # tokens of a batch: longer ones are no faster by the token


def ladder(max_tokens: int) -> list[tuple[int, int]]:
    """(rows, tokens), shortest first: every length up to the longest input, alone and in batches."""
    lengths = [length for length in LENGTHS if length < max_tokens] + [max_tokens]
    return [(rows, length) for length in lengths for rows in ROWS if rows == 1 or rows * length <= BUDGET]


def read_buckets(text: str, max_tokens: int) -> list[tuple[int, int]]:
    """ "auto", or buckets as "8x32,1x256", or a file with such a list. Raises ExportError."""
    if text == "auto":
        return ladder(max_tokens)
    listed = Path(text).read_text() if Path(text).is_file() else text
    buckets = {_bucket(part) for part in re.split(r"[,\s]+", listed.strip()) if part}
    longest = max((tokens for _, tokens in buckets), default=0)
    if longest != max_tokens:
        raise ExportError(
            f"The longest of the --buckets has {longest} tokens and the longest input {max_tokens}: add a"
            f" bucket of {max_tokens}, or say --max-context {longest}."
        )
    return sorted(buckets, key=lambda bucket: (bucket[1], bucket[0]))


def _bucket(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise ExportError(f"{text!r} is no bucket; say rows x tokens, as in --buckets 8x32,1x256.")
    return int(found[1]), int(found[2])
