"""Rope tables and attention windows, layer by layer, as transformers' own modules and configuration say."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from basert.errors import ExportError
from export.checkpoint import first_line
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
    longest = int(getattr(config, "max_position_embeddings", None) or 0)
    if not longest:
        raise ExportError(
            f"{type(config).__name__} says nothing of a longest context; basert cannot serve it."
        )
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        longest = min(longest, int(rope["original_max_position_embeddings"]))
    return longest


def read_positions(config: Any, length: int) -> Positions:
    """Tables of `length` positions. Raises ExportError for layers or a rotary module of another kind."""
    layers = _layers(config)
    try:
        return Positions(_tables(config, length, layers), layers)
    except ExportError:
        raise
    except Exception as error:  # an architecture's own code
        raise ExportError(
            f"{type(config).__name__} has positions of a kind that basert does not know: {first_line(error)}."
        ) from error


def _tables(config: Any, length: int, layers: list[Layer]) -> dict[str, Table]:
    rotary, rotate = rotary_module(config)
    by_kind = "layer_type" in inspect.signature(rotary.forward).parameters
    tables = {}
    for kind in dict.fromkeys(layer.kind for layer in layers):
        with torch.no_grad():
            given = {"layer_type": kind} if by_kind else {}
            cos, sin = rotary(torch.zeros(1), torch.arange(length)[None], **given)
        tables[kind] = _table(cos, sin, rotate)
    return tables


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


def _table(cos: torch.Tensor, sin: torch.Tensor, rotate: Callable[..., Any] | None) -> Table:
    """From the reference's tables [1, positions, rotary_dim], where each angle stands twice."""
    half = cos.shape[-1] // 2
    if torch.equal(cos[..., :half], cos[..., half:]):
        once, neighbours = slice(0, half), False
    elif torch.equal(cos[..., 0::2], cos[..., 1::2]):
        once, neighbours = slice(0, None, 2), True
    else:
        raise ExportError(
            "The rotary embedding rotates neither halves nor neighbours; basert cannot serve it."
        )
    if rotate is not None and half > 1:
        neighbours = _turns_neighbours(cos[:, 1:2], sin[:, 1:2], rotate)
    return Table(cos[0, :, once].numpy().copy(), sin[0, :, once].numpy().copy(), neighbours)


def _turns_neighbours(cos: torch.Tensor, sin: torch.Tensor, rotate: Callable[..., Any]) -> bool:
    """Where does the first channel turn to? Some architectures rotate neighbours with tables in halves."""
    probe = torch.zeros(1, 1, 1, cos.shape[-1])
    probe[..., 0] = 1
    turned = rotate(probe, probe, cos, sin)[0]
    return int(turned[0, 0, 0, 1:].abs().argmax()) == 0
