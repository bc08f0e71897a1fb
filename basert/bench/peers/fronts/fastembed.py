"""FastEmbed behind the front, with an ONNX model from this disk."""

from __future__ import annotations

import argparse

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

from basert.bench.peers.fronts.embeddings import Encoder, Vectors, main

NAME = "basert/measured"


class Model(Encoder):
    def __init__(self, args: argparse.Namespace) -> None:
        TextEmbedding.add_custom_model(
            model=NAME,
            pooling=PoolingType.MEAN,
            normalization=True,
            sources=ModelSource(hf=NAME),
            dim=int(args.width),
            model_file="model.onnx",
        )
        self._model = TextEmbedding(NAME, specific_model_path=str(args.model), threads=args.threads)

    def encode(self, texts: list[str]) -> Vectors:
        return np.stack([*self._model.embed(texts, batch_size=8)]).astype(np.float32)


if __name__ == "__main__":
    main(Model, "width")
