"""A front before an encoder that only hashes words: real HTTP, vectors that anybody can compute again.

With --steps N its numbers are rounded to N steps; with --metrics it counts a bucket as basert's engines do;
with --short it leaves out the last vector of a request.
"""

from __future__ import annotations

import argparse
import time
import zlib

import numpy as np
from aiohttp import web

from basert.bench.peers.fronts.embeddings import Encoder, Front, Vectors

WIDTH = 16
BUCKET = 'basert_engine_bucket_{name}_total{{model="hashing",rows="8",tokens="32"}} {value}\n'
SECONDS = 0.002  # of a run, as the page of counters has it


def embed(texts: list[str], steps: float = 0) -> Vectors:
    found = np.zeros((len(texts), WIDTH), np.float32)
    for row, text in enumerate(texts):
        for word in text.split():
            found[row, zlib.crc32(word.encode()) % WIDTH] += 1
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return (np.round(found * steps) / steps).astype(np.float32) if steps else found


class Hashing(Encoder):
    def __init__(self, steps: float, short: bool) -> None:
        self._steps, self._short = steps, short
        self.runs = self.inputs = 0

    def encode(self, texts: list[str]) -> Vectors:
        began = time.perf_counter()
        self.runs, self.inputs = self.runs + 1, self.inputs + len(texts)
        found = embed(texts, self._steps)
        self.session_seconds += time.perf_counter() - began
        return found[: len(texts) - self._short]

    async def metrics(self, _: web.Request) -> web.Response:
        values = {"runs": self.runs, "inputs": self.inputs, "input_tokens": 4 * self.inputs}
        values |= {"run_seconds": SECONDS * self.runs, "padded_tokens": 1}
        lines = (BUCKET.format(name=name, value=value) for name, value in values.items())
        return web.Response(text="".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--steps", type=float, default=0)
    parser.add_argument("--metrics", action="store_true")
    parser.add_argument("--short", action="store_true")
    args = parser.parse_args()
    encoder = Hashing(args.steps, args.short)
    app = Front(encoder, "hashing").app()
    if args.metrics:
        app.router.add_get("/metrics", encoder.metrics)
    web.run_app(app, host="127.0.0.1", port=args.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
