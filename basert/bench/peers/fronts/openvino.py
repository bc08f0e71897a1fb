"""OpenVINO GenAI's continuous batching behind the front: one thread steps it while there is work."""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai

from basert.bench.peers.fronts.server import Engine, Front, Request, let_leave


@dataclass
class Sequence:
    request: Request
    handle: Any  # openvino_genai.GenerationHandle


class Pipeline(Engine):
    def __init__(self, model: Path, cache_gb: int, batched_tokens: int, properties: dict[str, Any]) -> None:
        config = openvino_genai.SchedulerConfig()
        config.cache_size = cache_gb
        config.max_num_batched_tokens = batched_tokens
        config.enable_prefix_caching = True
        self._pipe = openvino_genai.ContinuousBatchingPipeline(model, config, "CPU", properties)
        self._arrived: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._running: dict[int, Sequence] = {}
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, request: Request) -> None:
        self._arrived.put(request)

    def cancel(self, request: Request) -> None:
        sequence = self._running.get(request.id)
        if sequence is not None:
            sequence.handle.cancel()

    def _work(self) -> None:
        while True:
            self._admit()
            self._pipe.step()
            sequences = [*self._running.values()]
            for sequence in sequences:
                self._publish(sequence)
            let_leave(sequences[0].request.loop)

    def _admit(self) -> None:
        """Everything that has arrived; waits for it when there is nothing else to do."""
        if not self._running:
            self._add(self._arrived.get())
        with contextlib.suppress(queue.Empty):
            while True:
                self._add(self._arrived.get_nowait())

    def _add(self, request: Request) -> None:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = request.max_tokens
        config.ignore_eos = request.ignore_eos
        config.do_sample = False
        if not request.ignore_eos:
            config.set_eos_token_id(self._pipe.get_config().eos_token_id)
        ids = openvino.Tensor(np.array([request.prompt], dtype=np.int64))
        handle = self._pipe.add_request(request.id, ids, config)
        self._running[request.id] = Sequence(request, handle)

    def _publish(self, sequence: Sequence) -> None:
        ids: list[int] = []
        while sequence.handle.can_read():
            for output in sequence.handle.read().values():
                ids += output.generated_ids
        over = sequence.handle.get_status() != openvino_genai.GenerationStatus.RUNNING
        if ids or over:
            sequence.request.push(ids, over)
        if over:
            del self._running[sequence.request.id]


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, kind in (("model", Path), ("name", str), ("port", int), ("cache-gb", int)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--batched-tokens", type=int, required=True)
    parser.add_argument("--properties", type=json.loads, default={}, help="OpenVINO's, as JSON")
    args = parser.parse_args()
    engine = Pipeline(args.model, args.cache_gb, args.batched_tokens, args.properties)
    Front(engine, args.model / "tokenizer.json", args.name).serve(args.port)


if __name__ == "__main__":
    main()
