"""`python -m engines`: one model's engine process."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

from basert.manifest import digest, read_manifest
from basert.messages import (
    Cancel,
    Drain,
    EngineInfo,
    EngineReport,
    Failed,
    Ready,
    Stats,
    StatsRequest,
    Submit,
    TokenLogprob,
    Tokens,
)
from basert.transport import Hub
from engines.sessions import SessionOptions, open_session


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engines")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--control", type=Path)
    parser.add_argument("--slots", type=int, default=0)
    parser.add_argument("--max-context", type=int, default=0)
    parser.add_argument("--max-queue", type=int, default=256)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--spin", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--log-format", default="text")
    parser.add_argument("--name", default="")
    a = parser.parse_args()
    started = time.monotonic()
    hub = Hub()
    control = hub.connect(a.control) if a.control else 0
    manifest = read_manifest(a.bundle)
    name = a.name or manifest.name
    hub.send(control, [EngineReport(name, "loading")])
    graph = manifest.graphs[0]
    slots, context = a.slots or manifest.slots, a.max_context or manifest.max_context
    try:
        session = open_session(a.bundle / graph.path, graph, manifest.kv_cache, SessionOptions(slots, context))
    except Exception as error:
        hub.send(control, [EngineReport(name, "failed", reason=str(error))])
        sys.exit(1)
    info = EngineInfo(
        name, digest(a.bundle), session.provider, slots, context, manifest.vocab_size, a.max_queue, os.getpid(),
        time.monotonic() - started,
    )
    hub.greeting = lambda: [Ready(info)]
    hub.listen(a.socket)
    hub.send(control, [EngineReport(name, "ready", 1.0, info=info)])
    active: dict[tuple[int, int], tuple[Submit, list[int]]] = {}
    draining = False
    while not (draining and not active):
        for peer, message in hub.poll(0 if active else None):
            if message is None:
                if peer == control:
                    sys.exit(1)
                active = {k: v for k, v in active.items() if k[0] != peer}
            elif isinstance(message, Submit):
                if draining:
                    hub.send(peer, [Failed(message.id, "draining", "This engine is stopping.")])
                elif len(message.prompt) >= context:
                    hub.send(peer, [Failed(message.id, "context_length_exceeded",
                        f"This model's maximum context length is {context} tokens, however the prompt has "
                        f"{len(message.prompt)} tokens; shorten it.")])
                else:
                    active[(peer, message.id)] = (message, [])
            elif isinstance(message, Cancel):
                active.pop((peer, message.id), None)
            elif isinstance(message, StatsRequest):
                hub.send(peer, [Stats(message.id, running=len(active), slots=slots)])
            elif isinstance(message, Drain):
                draining = True
        for (peer, i), (submit, out) in list(active.items()):
            ids = submit.prompt + out
            feeds = {"input_ids": np.array([ids]), "seqlens_k": np.array([len(ids) - 1], np.int32),
                     "total_seq": np.array(len(ids), np.int32), "logits_idx": np.array([len(ids) - 1])}
            fetches = {"next_token": np.zeros(1, np.int64)}
            try:
                session.bind(0, feeds, fetches)()
            except Exception as error:
                hub.send(peer, [Failed(i, "engine_failed", str(error))])
                del active[(peer, i)]
                continue
            token = int(fetches["next_token"][0])
            out.append(token)
            stop = token in (*manifest.eos_token_ids, *submit.stop_ids) and not submit.ignore_eos
            finish = "stop" if stop else "length" if len(out) >= submit.max_tokens or len(ids) + 1 >= context else ""
            logprobs = [TokenLogprob(token, -0.5, [(token, -0.5)][: submit.logprobs])] if submit.logprobs >= 0 else []
            hub.send(peer, [Tokens(i, [token], finish, logprobs)])
            if finish:
                del active[(peer, i)]
    hub.close()


if __name__ == "__main__":
    main()
