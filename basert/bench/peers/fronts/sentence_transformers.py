"""Sentence Transformers behind the front. It sorts texts by length by itself."""

from __future__ import annotations

import argparse

import numpy as np
from sentence_transformers import SentenceTransformer

from basert.bench.peers.fronts.embeddings import Encoder, Vectors, main


class Model(Encoder):
    def __init__(self, args: argparse.Namespace) -> None:
        """As many threads as OMP_NUM_THREADS says."""
        self._model = SentenceTransformer(
            str(args.model), device="cpu", model_kwargs={"dtype": args.dtype}, local_files_only=True
        )

    def encode(self, texts: list[str]) -> Vectors:
        found = self._model.encode(
            texts, batch_size=8, normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=False
        )
        return np.asarray(found.float().numpy(), np.float32)


if __name__ == "__main__":
    main(Model, "dtype")
