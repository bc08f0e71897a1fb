"""A session that computes nothing: it keeps token ids where a real one keeps keys and values.

Its "graph" is a JSON file, a Script. It obeys the rules of GroupQueryAttention, garbage writes of padding
and idle rows included, so that a scheduler that lets one sequence damage another's cache is found out.
Schedulers and processes are tested with it; nothing else may depend on it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from basert.errors import BundleError
from basert.manifest import KVCache
from engines.sessions import Arrays, SessionOptions

STEPPED = 1 << 32  # added to what a decode step leaves: to a real model, too, it is not what a chunk leaves
FUSED = 4  # most tokens at once that get what decode steps give


class Script(msgspec.Struct, frozen=True):
    """What the session plays. All ids are token ids.

    With a `sentence`, a history that ends in a beginning of it is followed by its next token, any other
    history by its first. Without one the next token is a hash of the whole history. Both read the cache.
    """

    vocab_size: int
    sentence: list[int] = []
    peak: float = 30.0  # how far the next token's logit stands above all others, which lie in [-4, 0]
    step_seconds: float = 0.0  # slept in each run
    load_seconds: float = 0.0  # slept while opening
    load_error: str = ""  # refuse to open with this sentence
    crash_id: int = -1  # a token that kills the process with SIGKILL
    raise_id: int = -1  # a token that makes its step raise
    broken_for_good: bool = False  # and every later step too


class TestingSession:
    """Plays a Script. The cache holds int64 ids: one layer, one head, head size one."""

    __test__ = False  # not a test class, whatever its name suggests

    def __init__(self, path: Path, kv: KVCache, options: SessionOptions) -> None:
        self.provider = "TestingExecutionProvider"
        self.script = msgspec.json.decode(path.read_bytes(), type=Script)
        time.sleep(self.script.load_seconds)
        if self.script.load_error:
            raise BundleError(self.script.load_error)
        self._broken = False
        self.cache = np.zeros((options.slots, options.max_context), kv.dtype)

    def bind(self, row: int, feeds: Arrays, fetches: Arrays) -> Callable[[], None]:
        return lambda: self._run(row, feeds, fetches)

    def move(self, source: int, target: int, length: int) -> None:
        self.cache[target, :length] = self.cache[source, :length]

    def end_profile(self) -> Path:
        raise BundleError("A session for tests keeps no profile; profile a bundle with a model.")

    def cached(self, row: int, length: int) -> Arrays:
        ids = self.cache[row, None, :length, None]
        return {"0.key": ids, "0.value": ids}

    def _run(self, row: int, feeds: Arrays, fetches: Arrays) -> None:
        ids = feeds["input_ids"]
        self._obey(ids)
        past = self._past(feeds)
        batch, chunk = ids.shape
        for i in range(batch):
            if past[i] < 0 or past[i] + chunk > self.cache.shape[1]:
                raise RuntimeError(f"row {row + i}: {past[i]} + {chunk} tokens are outside of the cache")
            self.cache[row + i, past[i] : past[i] + chunk] = ids[i] + (STEPPED if chunk <= FUSED else 0)
        for r, index in enumerate(feeds["logits_idx"].tolist()):
            i, position = divmod(index, chunk)
            token = self.next_token(self.cache[row + i, : past[i] + position + 1])
            if "next_token" in fetches:
                fetches["next_token"][r] = token
            if "logits" in fetches:
                fetches["logits"][r] = logits_of(self.script, token)

    def _obey(self, ids: NDArray[np.int64]) -> None:
        time.sleep(self.script.step_seconds)
        if self.script.crash_id in ids:
            os.kill(os.getpid(), signal.SIGKILL)
        self._broken = self._broken and self.script.broken_for_good
        if self._broken or self.script.raise_id in ids:
            self._broken = True
            raise RuntimeError("the testing session was told to fail")

    def _past(self, feeds: Arrays) -> NDArray[np.int64]:
        batch, chunk = feeds["input_ids"].shape
        if chunk == int(feeds["total_seq"]):  # a first prefill, ragged or not
            return np.zeros(batch, np.int64)
        if batch > 1 and chunk > 1:
            raise RuntimeError("batch size must be 1 when sequence length > 1 and past context is given")
        past: NDArray[np.int64] = feeds["seqlens_k"].astype(np.int64) + 1 - chunk
        return past

    def next_token(self, history: NDArray[np.int64]) -> int:
        """What follows `history`, an int64 vector of ids, with STEPPED added to those of decode steps."""
        sentence = self.script.sentence
        if sentence:
            tail = (history[-len(sentence) :] % STEPPED).tolist()
            matched = [n for n in range(1, len(sentence)) if tail[-n:] == sentence[:n]]
            return sentence[matched[-1] if matched else 0]
        weights = np.arange(1, len(history) + 1, dtype=np.int64) * 2654435761
        return int(np.bitwise_xor.reduce((history + 1) * weights) >> 7) % self.script.vocab_size


def logits_of(script: Script, token: int) -> NDArray[np.float32]:
    """The float32 logits [vocab] of a step whose next token is `token`."""
    ids = np.arange(script.vocab_size, dtype=np.int64)
    logits = -(ids * 2654435761 % 1000).astype(np.float32) / np.float32(250)
    logits[token] = script.peak
    return logits
