"""An adapter as PEFT saves it: adapter_config.json and adapter_model.safetensors. Knows no graph and no base.

What basert cannot apply exactly is refused by name; nothing of an adapter is ever left out silently.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from basert.errors import ExportError
from basert.manifest import Source
from export.checkpoint import first_line, read_json
from export.workspace import sha256_of

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
MOST_RANK = 128  # see export.passes.lora

Array = np.ndarray[Any, Any]

# Fields that change what an adapter computes, when they are set to anything but what stands here.
PLAIN: dict[str, tuple[Any, ...]] = {
    "use_dora": (False,),
    "modules_to_save": ([],),
    "bias": ("none",),
    "lora_bias": (False,),
    "trainable_token_indices": ([], {}),
    "target_parameters": ([],),
    "layer_replication": ([],),
    "use_qalora": (False,),
    "use_bdlora": (False, {}),
    "alora_invocation_tokens": ([],),
    "arrow_config": ({},),
    "fan_in_fan_out": (False,),
}
NAMES = {"use_dora": "DoRA", "bias": "trained biases", "lora_bias": "biases of its own"}


@dataclass(frozen=True)
class Change:
    """What an adapter adds to one linear layer of the checkpoint: x a^T b^T scale."""

    a: Array  # float32 [rank, in]
    b: Array  # float32 [out, rank]
    scale: float


@dataclass(frozen=True)
class PeftAdapter:
    folder: Path
    source: Source
    alpha: float
    rslora: bool
    changes: Mapping[str, Change]  # by the layer's name: "model.layers.0.self_attn.q_proj"

    @property
    def rank(self) -> int:
        """The largest."""
        return max(len(change.a) for change in self.changes.values())

    @property
    def modules(self) -> list[str]:
        return sorted({name.rpartition(".")[2] for name in self.changes})


def read_peft(folder: Path) -> PeftAdapter:
    """Raises ExportError for what is no LoRA adapter, is damaged, or cannot be applied exactly."""
    config = _config(folder)
    tensors = _tensors(folder)
    rslora = bool(config.get("use_rslora"))
    changes = {
        name: Change(a, b, _alpha(config, name) / (math.sqrt(len(a)) if rslora else len(a)))
        for name, (a, b) in _pairs(folder, tensors).items()
    }
    for name, change in changes.items():
        _check_rank(folder, config, name, len(change.a))
    source = Source(str(folder.absolute()), sha256=sha256_of([folder / CONFIG, folder / WEIGHTS]))
    return PeftAdapter(folder, source, float(config.get("lora_alpha", 0)), rslora, changes)


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise ExportError(
            f"{folder} is no PEFT adapter: it has no {CONFIG}; name the folder that it was saved to."
        )
    config = read_json(folder / CONFIG)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ExportError(f"{folder} is an adapter of the kind {kind}; basert takes LORA.")
    for field, plain in PLAIN.items():
        value = config.get(field)
        if value is not None and value not in plain:
            what = NAMES.get(field, field)
            raise ExportError(
                f"{folder} uses {what} ({field}: {value!r}), which basert does not support; "
                "train the adapter without, or merge it into its base and export that."
            )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1:
        raise ExportError(f"{folder / CONFIG} names no rank r and lora_alpha; save the adapter again.")
    return config


def _tensors(folder: Path) -> dict[str, Array]:
    import safetensors.torch

    path = folder / WEIGHTS
    if not path.is_file():
        also = (
            " (adapter_model.bin can hold code, and is not read)"
            if (folder / "adapter_model.bin").exists()
            else ""
        )
        raise ExportError(f"{folder} has no {WEIGHTS}{also}; save the adapter as safetensors.")
    try:
        loaded = safetensors.torch.load_file(path)
    except Exception as error:  # safetensors' own, or the system's
        raise ExportError(f"{path} is damaged ({first_line(error)}); fetch the adapter again.") from None
    return {name: tensor.float().numpy() for name, tensor in loaded.items()}


def _pairs(folder: Path, tensors: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
    """(A [rank, in], B [out, rank]) by the layer's name."""
    halves: dict[str, dict[str, Array]] = {}
    for key, tensor in tensors.items():
        found = re.fullmatch(re.escape(PREFIX) + r"(.+)\.lora_([AB])\.weight", key)
        if found is None:
            raise ExportError(
                f"{folder} changes {key.removeprefix(PREFIX)}, which is no plain low-rank change of a linear"
                " layer; train the adapter without, or merge it into its base and export that."
            )
        halves.setdefault(found[1], {})[found[2]] = tensor
    if not halves:
        raise ExportError(f"{folder / WEIGHTS} holds no weights; save the adapter again.")
    for name, pair in halves.items():
        if pair.keys() != {"A", "B"} or any(half.ndim != 2 for half in pair.values()):
            raise ExportError(
                f"{folder} has half of a change of {name}, or none of a linear layer; save it again."
            )
    return {name: (pair["A"], pair["B"]) for name, pair in halves.items()}


def _check_rank(folder: Path, config: Mapping[str, Any], name: str, rank: int) -> None:
    said = _of_pattern(config.get("rank_pattern"), name, config["r"])
    if rank != said:
        raise ExportError(
            f"{folder} says rank {said} for {name}, and its weights have {rank}; save it again."
        )
    if rank > MOST_RANK:
        raise ExportError(
            f"{folder} has rank {rank} at {name}; basert takes up to {MOST_RANK}: merge it into its base."
        )


def _alpha(config: Mapping[str, Any], name: str) -> float:
    return float(_of_pattern(config.get("alpha_pattern"), name, config["lora_alpha"]))


def _of_pattern(patterns: Mapping[str, Any] | None, name: str, default: Any) -> Any:
    """What a pattern says of a layer, as PEFT matches them: whole last parts of its name."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default
