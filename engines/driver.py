"""An engine stepped by hand, with requests of random tokens: what a profile is made of. Knows no runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from basert import frames
from basert.errors import BundleError
from basert.messages import Cancel, Message, Sampling, Stats, StatsRequest, Submit, Tokens
from engines.engine import Engine
from engines.loading import EngineConfig, load

PEER = 1
STEPS = 15  # that are measured of each phase
SETTLING = 3  # that come before
MORE = 96  # tokens that a request may be given while the prompts of the others are read
GREEDY = Sampling(temperature=0)


class Step(NamedTuple):
    number: int  # of all steps of its engine
    seconds: float
    outside: float  # seconds of it that were not the runtime's


class Driver:
    """Raises BundleError for what the engine refuses."""

    def __init__(self, config: EngineConfig) -> None:
        self._began: set[int] = set()
        self._stats = Stats(0)
        self._next = 0
        self._random = np.random.default_rng(0)
        engine, self.info = load(config, self._publish, _say_nothing)
        if not isinstance(engine, Engine):
            raise BundleError(f"{self.info.model} is no decoder, and only those can be profiled.")
        self.engine = engine

    def decode(self, rows: int, context: int, sampling: Sampling) -> list[Step]:
        """Steps of `rows` sequences whose prompts have `context` tokens."""
        requests = [self._submit(context, sampling) for _ in range(rows)]
        while not self._began.issuperset(requests):
            self.engine.step()
        steps = [self._step() for _ in range(SETTLING + STEPS)]
        self._end(requests)
        return steps[SETTLING:]

    def prefill(self, chunk: int) -> list[Step]:
        """The second chunks of prompts: their past is one chunk long."""
        steps = []
        for _ in range(STEPS // 2):
            request = self._submit(2 * chunk + 2, GREEDY)
            self.engine.step()
            steps.append(self._step())
            self._end([request])
        return steps

    def context(self, wanted: int) -> int:
        """As much of it as there is room for."""
        return max(1, min(wanted, self.info.max_context - MORE - SETTLING - STEPS))

    @property
    def steps(self) -> int:
        """That were made since the engine was loaded."""
        counters = self._counters()
        return counters.decode_steps + counters.prefill_steps

    def end(self) -> Path:
        """Where the runtime's profile is."""
        return self.engine.end_profile()

    def _submit(self, prompt_tokens: int, sampling: Sampling) -> int:
        self._next += 1
        prompt = self._random.integers(0, self.info.vocab_size, prompt_tokens).tolist()
        tokens = self.info.max_context - prompt_tokens
        self.engine.receive(PEER, Submit(self._next, prompt, tokens, sampling, ignore_eos=True))
        return self._next

    def _step(self) -> Step:
        before = self._counters()
        self.engine.step()
        after = self._counters()
        seconds = after.step_seconds - before.step_seconds
        return Step(
            before.decode_steps + before.prefill_steps,
            seconds,
            seconds - (after.run_seconds - before.run_seconds),
        )

    def _end(self, requests: Sequence[int]) -> None:
        for request in requests:
            self.engine.receive(PEER, Cancel(request))
        while self.engine.busy:
            self.engine.step()

    def _counters(self) -> Stats:
        self.engine.receive(PEER, StatsRequest())
        return self._stats

    def _publish(self, _peer: int, messages: list[Message]) -> None:
        frames.pack(messages)  # part of a step's time; the socket is not
        for message in messages:
            if isinstance(message, Stats):
                self._stats = message
            elif isinstance(message, Tokens):
                self._began.add(message.id)
            else:
                raise BundleError(f"The engine refused to be profiled: {message}; ask for fewer rows.")


def _say_nothing(_stage: str, _fraction: float) -> None:
    """Of how loading goes."""
