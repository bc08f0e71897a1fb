"""A plain ONNX Runtime session behind the front: texts sorted by length, in padded batches of 8."""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from basert.bench.peers.fronts.embeddings import Encoder, Vectors, main

BATCH = 8  # 32 were slower: a request of 32 texts was then padded to its longest


class Model(Encoder):
    def __init__(self, args: argparse.Namespace) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = args.threads
        self._session = onnxruntime.InferenceSession(
            str(args.model / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._names = {one.name for one in self._session.get_inputs()}
        self._tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
        self._tokenizer.enable_truncation(int(args.longest))
        self._tokenizer.no_padding()

    def encode(self, texts: list[str]) -> Vectors:
        ids = [one.ids for one in self._tokenizer.encode_batch(texts)]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        found = np.concatenate([self._run([ids[index] for index in batch]) for batch in batches])
        return found[np.argsort(order)]

    def _run(self, ids: list[list[int]]) -> Vectors:
        longest = max(map(len, ids))
        tokens = np.array([one + [0] * (longest - len(one)) for one in ids], np.int64)
        mask = np.array([[1] * len(one) + [0] * (longest - len(one)) for one in ids], np.int64)
        feed = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        began = time.perf_counter()
        [states] = self._session.run(None, {name: feed[name] for name in self._names})
        self.session_seconds += time.perf_counter() - began
        return _pooled(states, mask)


def _pooled(states: NDArray[np.float32], mask: NDArray[np.int64]) -> Vectors:
    """The mean over a text's tokens, scaled to length 1."""
    sums = np.einsum("rtw,rt->rw", states, mask.astype(np.float32), optimize=True)
    unit: Vectors = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return unit


if __name__ == "__main__":
    main(Model, "longest")
