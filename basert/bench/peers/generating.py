"""The discipline of decoders: streamed completions."""

from __future__ import annotations

import time
from dataclasses import dataclass

from basert.bench.load import Outcome, Workload, crowd, run
from basert.bench.peers.texts import Texts
from basert.bench.peers.trial import Discipline
from basert.bench.peers.trials import Stream, check
from basert.bench.prompts import Prompts
from basert.client import Client


@dataclass(frozen=True)
class Generating(Discipline[Stream]):
    prompts: Prompts
    texts: Texts

    method = (
        "One client, the same for all: streamed /v1/completions, greedy, prompts as token ids, all unlike.",
    )
    keep_alive = False  # llama.cpp ends a stream with its connection

    def subject(self, client: Client, model: str, pid: int) -> Stream:
        return Stream(client, model, pid, Workload(client, model, self.prompts), self.texts)

    async def first_answer(self, subject: Stream) -> float:
        workload = subject.workload
        outcome = Outcome(time.perf_counter())
        await run(workload.client, workload.body(workload.prompts.draw(16), 4), outcome)
        check([outcome], 16, 4)
        return outcome.arrivals[0]

    async def warm_up(self, subject: Stream, streams: int) -> None:
        """One stream, all streams and a long prompt."""
        workload = subject.workload
        for count, prompt_tokens in ((1, 64), (streams, 64), (2, 512)):
            outcomes, _ = await crowd(workload.client, workload.bodies(count, prompt_tokens, 8), count)
            check(outcomes, prompt_tokens, 8)
