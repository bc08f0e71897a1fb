"""Sessions that compute nothing. Schedulers and processes are tested with them; no code may depend on them.

The "graph" is a JSON file. A decoder's, a Script, keeps token ids where a real one keeps keys and values. It
obeys the rules of GroupQueryAttention, garbage writes of padding and idle rows included, so that a scheduler
that lets one sequence damage another's cache is found out. An encoder's, an EncoderScript, answers each row
with a hash of its tokens and runs its buckets only, so that a queue that mixes inputs up is found out. A
listener's, a ListenerScript, leaves a number of its window (`heard_of`), on which the decoder's words depend.
"""

from __future__ import annotations

import os
import signal
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from basert.errors import BundleError
from basert.manifest import KVCache
from engines.sessions import Arrays, SessionOptions

STEPPED = 1 << 32  # added to what a decode step leaves: to a real model, too, it is not what a chunk leaves
FUSED = 4  # most tokens at once that get what decode steps give
ADAPTED = 1 << 34  # times the number of an adapter, added to what its rows leave


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What every testing session does when it is told to."""

    step_seconds: float = 0.0  # slept in each run
    load_seconds: float = 0.0  # slept while opening
    load_error: str = ""  # refuse to open with this sentence
    crash_id: int = -1  # a token that kills the process with SIGKILL
    raise_id: int = -1  # a token that makes its step raise
    broken_for_good: bool = False  # and every later step too


class Script(Orders, frozen=True, kw_only=True, tag="decoder"):
    """What a decoder's session plays. All ids are token ids.

    With a `sentence`, a history that ends in a beginning of it is followed by its next token, any other
    history by its first. Without one the next token is a hash of the whole history, and of the row's adapter.
    Both read the cache.
    """

    vocab_size: int
    sentence: list[int] = []
    adapted: list[int] = []  # the sentence of a row with an adapter
    peak: float = 30.0  # how far the next token's logit stands above all others, which lie in [-4, 0]
    speech: SpeechScript | None = None  # of a decoder that hears; then `sentence` is not played


class SpeechScript(msgspec.Struct, frozen=True, kw_only=True):
    """What a decoder plays that has heard a window of the number h, see heard_of.

    Its sentence is sentences[h % len(sentences)] (without any: the hash), after <|notimestamps|> without its
    timestamps. The language is languages[h % len(languages)]. A window of silence, whose number is 0, is told
    as one, and what is said of it nevertheless is unlikely.
    """

    sentences: list[list[int]]
    sot: int
    no_speech: int
    no_timestamps: int
    timestamp_begin: int
    languages: list[int] = []


class EncoderScript(Orders, frozen=True, kw_only=True, tag="encoder"):
    """What an encoder's session plays: values_of each row."""

    width: int
    shapes: list[tuple[int, int]]  # the buckets; anything else raises
    normalised: bool = False
    token_types: bool = False  # there is an input of them


class ListenerScript(Orders, frozen=True, kw_only=True, tag="listener"):
    """What a listener's session plays. Its crash_id and raise_id are numbers of windows."""


def open_testing(
    path: Path, kv: KVCache, options: SessionOptions
) -> TestingSession | TestingEncoder | TestingListener:
    """Open whatever the graph's file is. Raises BundleError when it says so."""
    script = msgspec.json.decode(path.read_bytes(), type=Script | EncoderScript | ListenerScript)
    time.sleep(script.load_seconds)
    if script.load_error:
        raise BundleError(script.load_error)
    if isinstance(script, Script):
        return TestingSession(script, kv, options)
    return TestingEncoder(script) if isinstance(script, EncoderScript) else TestingListener(script)


class _Obedient:
    """Follows Orders."""

    def __init__(self, orders: Orders) -> None:
        self.provider = "TestingExecutionProvider"
        self._orders = orders
        self._broken = False

    def end_profile(self) -> Path:
        raise BundleError("A session for tests keeps no profile; profile a bundle with a model.")

    def _obey(self, ids: NDArray[np.int64]) -> None:
        time.sleep(self._orders.step_seconds)
        if self._orders.crash_id in ids:
            os.kill(os.getpid(), signal.SIGKILL)
        self._broken = self._broken and self._orders.broken_for_good
        if self._broken or self._orders.raise_id in ids:
            self._broken = True
            raise RuntimeError("the testing session was told to fail")


class TestingSession(_Obedient):
    """Plays a Script. The cache holds int64 ids: one layer, one head, head size one."""

    __test__ = False  # not a test class, whatever its name suggests

    def __init__(self, script: Script, kv: KVCache, options: SessionOptions) -> None:
        super().__init__(script)
        self.script = script
        self.cache = np.zeros((options.slots, options.max_context), kv.dtype)

    def bind(self, row: int, feeds: Arrays, fetches: Arrays) -> Callable[[], None]:
        return lambda: self._run(row, feeds, fetches)

    def beside(self, path: Path, options: SessionOptions) -> TestingSession:
        script = msgspec.json.decode(path.read_bytes(), type=Script)
        time.sleep(script.load_seconds)
        other = TestingSession(script, KVCache("int64", [1], [1]), options)
        other.cache = self.cache
        return other

    def move(self, source: int, target: int, length: int) -> None:
        self.cache[target, :length] = self.cache[source, :length]

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
            left = ids[i] + (STEPPED if chunk <= FUSED else 0) + ADAPTED * _adapter_of(feeds, i)
            self.cache[row + i, past[i] : past[i] + chunk] = left
        for r, index in enumerate(feeds["logits_idx"].tolist()):
            i, position = divmod(index, chunk)
            history = self.cache[row + i, : past[i] + position + 1]
            heard = int(feeds["cross.0.key"][i, 0, 0, 0]) if self.script.speech else _adapter_of(feeds, i)
            token = self.next_token(history, heard)
            if "next_token" in fetches:
                fetches["next_token"][r] = token
            if "logits" in fetches:
                fetches["logits"][r] = logits_of(self.script, token, heard)

        for r, index in enumerate(feeds["align_idx"].tolist() if "alignment" in fetches else []):
            i, position = divmod(index, chunk)
            _align(fetches["alignment"][r], int(past[i]) + position + 1)

    def _past(self, feeds: Arrays) -> NDArray[np.int64]:
        batch, chunk = feeds["input_ids"].shape
        if chunk == int(feeds["total_seq"]):  # a first prefill, ragged or not
            return np.zeros(batch, np.int64)
        if batch > 1 and chunk > 1:
            raise RuntimeError("batch size must be 1 when sequence length > 1 and past context is given")
        past: NDArray[np.int64] = feeds["seqlens_k"].astype(np.int64) + 1 - chunk
        return past

    def next_token(self, history: NDArray[np.int64], heard: int = 0) -> int:
        """What follows `history`, an int64 vector of ids, with STEPPED added to those of decode steps."""
        sentence = self._sentence(history, heard)
        if sentence:
            tail = (history[-len(sentence) :] % STEPPED).tolist()
            matched = [n for n in range(1, len(sentence)) if tail[-n:] == sentence[:n]]
            return sentence[matched[-1] if matched else 0]
        weights = np.arange(1, len(history) + 1, dtype=np.int64) * 2654435761
        return (int(np.bitwise_xor.reduce((history + 1) * weights) >> 7) + heard) % self.script.vocab_size

    def _sentence(self, history: NDArray[np.int64], heard: int) -> list[int]:
        speech = self.script.speech
        if speech is None:
            return self.script.adapted if heard else self.script.sentence
        if not speech.sentences:
            return self.script.sentence
        sentence = speech.sentences[heard % len(speech.sentences)]
        if speech.no_timestamps not in history % STEPPED:
            return sentence
        return [token for token in sentence if token < speech.timestamp_begin]


def _adapter_of(feeds: Arrays, row: int) -> int:
    """The number of a row's adapter, the product of its factors; 0 for none."""
    if "lora_rows.1" not in feeds:
        return 0
    numbers = feeds["lora.0.a"][:, 0, 0] * feeds["lora.0.b"][:, 0]
    return int((feeds["lora_rows.1"][:, row] * numbers).sum())


def logits_of(script: Script, token: int, heard: int = 0) -> NDArray[np.float32]:
    """The float32 logits [vocab] of a step whose next token is `token`; heard: the number of the window."""
    ids = np.arange(script.vocab_size, dtype=np.int64)
    logits = -(ids * 2654435761 % 1000).astype(np.float32) / np.float32(250)
    if speech := script.speech:
        logits[speech.timestamp_begin :] -= 20  # all of them together are no likelier than a text's token
        if speech.languages:
            logits[speech.languages[heard % len(speech.languages)]] = 1.0
        logits[speech.no_speech] = -4.0 if heard else 10.0
    logits[token] = script.peak if heard or not script.speech else 2.0
    return logits


def _align(attention: NDArray[np.float32], length: int) -> None:
    """Fill [heads, frames] with the attention of a history's last token: to every tenth frame in turn."""
    attention[...] = 0
    attention[:, min(10 * length, attention.shape[1] - 1)] = 1


class TestingListener(_Obedient):
    """Plays a ListenerScript."""

    __test__ = False

    def __init__(self, script: ListenerScript) -> None:
        super().__init__(script)
        self.script = script
        self.runs = 0

    def bind(self, row: int, feeds: Arrays, fetches: Arrays) -> Callable[[], None]:
        if row != 0 or feeds.keys() != {"features"} or fetches.keys() != {"cross.0.key", "cross.0.value"}:
            raise RuntimeError(f"a listener was bound to {sorted(feeds)} and {sorted(fetches)} at row {row}")
        return lambda: self._run(feeds["features"], fetches)

    def move(self, *_source_target_length: int) -> None:
        raise RuntimeError("a listener has no cache")

    def cached(self, *_row_length: int) -> Arrays:
        raise RuntimeError("a listener has no cache")

    def _run(self, features: NDArray[np.float32], fetches: Arrays) -> None:
        self.runs += 1
        numbers = [heard_of(window.tobytes()) for window in features]
        self._obey(np.array(numbers))
        for cross in fetches.values():
            cross[...] = np.array(numbers, np.float32)[:, None, None, None]


def heard_of(features: bytes) -> int:
    """The number of a window: below 2^24, as float32 keeps it; 0 for silence, whose values are all equal."""
    values = np.frombuffer(features, np.float32)
    return 0 if (values == values[0]).all() else zlib.crc32(features) % (1 << 23) + 1


class TestingEncoder(_Obedient):
    """Plays an EncoderScript. It has no cache."""

    __test__ = False

    def __init__(self, script: EncoderScript) -> None:
        super().__init__(script)
        self.script = script

    def bind(self, row: int, feeds: Arrays, fetches: Arrays) -> Callable[[], None]:
        names = {"input_ids", "attention_mask"} | ({"token_type_ids"} if self.script.token_types else set())
        shape = feeds["input_ids"].shape
        if row != 0 or feeds.keys() != names or fetches.keys() != {"values"}:
            raise RuntimeError(f"an encoder with {sorted(names)} was bound to {sorted(feeds)} at row {row}")
        if shape not in self.script.shapes:
            raise RuntimeError(f"{shape} is none of the buckets {self.script.shapes}")
        return lambda: self._run(feeds, fetches["values"])

    def move(self, *_source_target_length: int) -> None:
        raise RuntimeError("an encoder has no cache")

    def cached(self, *_row_length: int) -> Arrays:
        raise RuntimeError("an encoder has no cache")

    def _run(self, feeds: Arrays, values: NDArray[np.float32]) -> None:
        ids, mask = feeds["input_ids"], feeds["attention_mask"]
        lengths = mask.sum(axis=1)
        if not np.array_equal(mask, np.arange(ids.shape[1]) < lengths[:, None]) or not lengths.all():
            raise RuntimeError("a row's mask is no run of ones, then zeros")
        self._obey(ids[mask > 0])
        types = feeds.get("token_type_ids", np.zeros_like(ids))
        for i, length in enumerate(lengths):
            values[i] = values_of(self.script, ids[i, :length], types[i, :length])


def values_of(
    script: EncoderScript, ids: ArrayLike, token_types: ArrayLike | None = None
) -> NDArray[np.float32]:
    """What an encoder's session answers to an input: [width] numbers in [-1, 1) that depend on every id, each
    token type (None: all 0) and their order; of length 1 if the script is normalised."""
    tokens = np.asarray(ids, np.uint64)
    types = np.zeros_like(tokens) if token_types is None else np.asarray(token_types, np.uint64)
    places = np.arange(len(tokens), dtype=np.uint64)
    whole = np.bitwise_xor.reduce(_mixed((tokens << np.uint64(32)) + (types << np.uint64(24)) + places))
    numbers = _mixed(whole + np.arange(script.width, dtype=np.uint64)) >> np.uint64(40)
    values = (numbers.astype(np.float64) / (1 << 23) - 1).astype(np.float32)
    return values / np.linalg.norm(values) if script.normalised else values


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of each (the end of SplitMix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
