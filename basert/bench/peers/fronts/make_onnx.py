"""A checkpoint's encoder as an ONNX graph of any shape, in float32, for peers that serve one.

Exported by torch (opset 23, whose Attention operator the runtime has a kernel for).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim
from transformers import AutoModel

NAMES = ("input_ids", "attention_mask", "token_type_ids")


class States(torch.nn.Module):  # type: ignore[misc]  # torch is not read for types
    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = model

    def forward(self, *inputs: torch.Tensor) -> Any:
        """[rows, tokens, width]"""
        return self._model(**dict(zip(NAMES, inputs, strict=True)), return_dict=False)[0]


def export(checkpoint: Path, into: Path) -> None:
    model = States(AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval())
    mask = torch.ones(3, 17, dtype=torch.int64)
    mask[1, 9:] = 0
    shape = {0: Dim("rows"), 1: Dim("tokens")}
    torch.onnx.export(
        model,
        (torch.ones_like(mask), mask, torch.zeros_like(mask)),
        into / "model.onnx",
        input_names=NAMES,
        output_names=["last_hidden_state"],
        dynamic_shapes={"inputs": tuple(shape for _ in NAMES)},
        external_data=False,
        dynamo=True,
        opset_version=23,
    )
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(checkpoint / name, into)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("into", type=Path)
    args = parser.parse_args()
    export(args.checkpoint, args.into)
