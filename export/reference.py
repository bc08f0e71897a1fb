"""The reference: transformers' own model in fp32. Nothing else of export runs a torch model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from basert.errors import ExportError
from export.checkpoint import first_line


def load_model(checkpoint: Path, dtype: Any = torch.float32) -> Any:
    """The checkpoint as transformers loads it. Raises ExportError."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype=dtype, trust_remote_code=False, local_files_only=True
        ).eval()
    except Exception as error:  # safetensors, transformers and torch each raise their own
        raise ExportError(f"transformers cannot load {checkpoint}: {first_line(error)}.") from error


class Reference:
    """A checkpoint loaded by transformers in fp32, for comparison."""

    def __init__(self, checkpoint: Path, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._model = load_model(checkpoint)

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """float32 [len(ids), vocab]: what follows each prefix of `ids`."""
        with torch.no_grad():
            output = self._model(input_ids=torch.tensor([list(ids)]), use_cache=False)
        logits: torch.Tensor = output.logits[0].float()
        return logits
