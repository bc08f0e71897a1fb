"""An engine in this process, stepped by hand: no socket, no clock."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from basert.messages import (
    Cancel,
    Failed,
    Message,
    Sampling,
    Stats,
    StatsRequest,
    Submit,
    TokenLogprob,
    Tokens,
)
from engines.loading import EngineConfig, load

GREEDY = Sampling(temperature=0)
PEER = 1


class SteppedEngine:
    """Collects what is published, by (peer, request id)."""

    def __init__(self, bundle: Path, **config: Any) -> None:
        self.replies: defaultdict[tuple[int, int], list[Message]] = defaultdict(list)
        self.engine, self.info = load(
            EngineConfig(bundle, **config), self._publish, lambda stage, fraction: None
        )
        self._next = 0

    @property
    def scheduler(self) -> Any:
        return self.engine._scheduler

    @property
    def session(self) -> Any:
        return self.engine._runner._session

    def ask(
        self,
        prompt: list[int],
        max_tokens: int,
        sampling: Sampling = GREEDY,
        *,
        peer: int = PEER,
        **more: Any,
    ) -> int:
        """Submit a request; its id is returned."""
        self._next += 1
        self.engine.receive(peer, Submit(self._next, prompt, max_tokens, sampling, **more))
        return self._next

    def cancel(self, number: int, peer: int = PEER) -> None:
        self.engine.receive(peer, Cancel(number))

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.engine.step()

    def finish(self) -> None:
        while self.engine.busy:
            self.engine.step()

    def answer(
        self, prompt: list[int], max_tokens: int, sampling: Sampling = GREEDY, **more: Any
    ) -> list[int]:
        """The tokens of a request that has the engine to itself."""
        number = self.ask(prompt, max_tokens, sampling, **more)
        self.finish()
        return self.tokens(number)

    def tokens(self, number: int, peer: int = PEER) -> list[int]:
        return [token for reply in self._tokens(number, peer) for token in reply.tokens]

    def logprobs(self, number: int) -> list[TokenLogprob]:
        return [entry for reply in self._tokens(number, PEER) for entry in reply.logprobs]

    def prompt_logprobs(self, number: int) -> list[TokenLogprob]:
        return [entry for reply in self._tokens(number, PEER) for entry in reply.prompt_logprobs]

    def ending(self, number: int, peer: int = PEER) -> str:
        """How a request ended: its finish, or the code it failed with; "" while it goes on."""
        endings = [
            reply.code if isinstance(reply, Failed) else reply.finish
            for reply in self.replies[peer, number]
            if isinstance(reply, Failed) or (isinstance(reply, Tokens) and reply.finish)
        ]
        assert len(endings) <= 1, f"request {number} ended {len(endings)} times"
        return endings[0] if endings else ""

    def failure(self, number: int, peer: int = PEER) -> Failed:
        [reply] = self.replies[peer, number]
        assert isinstance(reply, Failed)
        return reply

    def stats(self) -> Stats:
        self.engine.receive(PEER, StatsRequest(0))
        reply = self.replies[PEER, 0].pop()
        assert isinstance(reply, Stats)
        return reply

    def _publish(self, peer: int, messages: list[Message]) -> None:
        for message in messages:
            self.replies[peer, message.id].append(message)  # type: ignore[attr-defined]

    def _tokens(self, number: int, peer: int) -> list[Tokens]:
        return [reply for reply in self.replies[peer, number] if isinstance(reply, Tokens)]
