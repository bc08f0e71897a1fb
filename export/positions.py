"""Rope tables and attention windows, layer by layer, as transformers' own modules and configuration say."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from basert.errors import ExportError
from export.skeleton import rotary_module

Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Table:
    """cos and sin of every position, float32 [positions, rotary_dim / 2]."""

    cos: Array
    sin: Array
    interleaved: bool  # the rotated pairs are neighbours, not halves


@dataclass(frozen=True)
class Layer:
    kind: str  # key of Positions.tables
    window: int | None  # a query sees this many keys, itself included; None: all


@dataclass(frozen=True)
class Positions:
    tables: dict[str, Table]
    layers: list[Layer]


def longest_context(config: Any) -> int:
    """Positions for which one rope table is right: longrope has other frequencies beyond its first length."""
    longest = int(config.max_position_embeddings)
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        longest = min(longest, int(rope["original_max_position_embeddings"]))
    return longest


def read_positions(config: Any, length: int) -> Positions:
    """Tables of `length` positions. Raises ExportError for layers or a rotary module of another kind."""
    layers = _layers(config)
    rotary = rotary_module(config)
    by_kind = "layer_type" in inspect.signature(rotary.forward).parameters
    return Positions(
        {kind: _table(rotary, length, kind if by_kind else None) for kind in _kinds(layers)}, layers
    )


def _layers(config: Any) -> list[Layer]:
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if kinds is None:
        kinds = ["sliding_attention" if window else "full_attention"] * config.num_hidden_layers
    unknown = set(kinds) - {"full_attention", "sliding_attention"}
    if unknown:
        raise ExportError(
            f"Layers of type {', '.join(sorted(unknown))} are not supported, only full and sliding attention."
        )
    return [Layer(kind, window if kind == "sliding_attention" else None) for kind in kinds]


def _kinds(layers: list[Layer]) -> list[str]:
    return list(dict.fromkeys(layer.kind for layer in layers))


def _table(rotary: Any, length: int, kind: str | None) -> Table:
    arguments = {} if kind is None else {"layer_type": kind}
    with torch.no_grad():
        cos, sin = rotary(torch.zeros(1), torch.arange(length)[None], **arguments)
    half = cos.shape[-1] // 2
    interleaved = not torch.equal(cos[..., :half], cos[..., half:])
    if interleaved and not torch.equal(cos[..., 0::2], cos[..., 1::2]):
        raise ExportError(
            "The rotary embedding rotates neither halves nor neighbours; basert cannot serve it."
        )
    part = slice(0, None, 2) if interleaved else slice(0, half)
    return Table(cos[0, :, part].numpy().copy(), sin[0, :, part].numpy().copy(), interleaved)
