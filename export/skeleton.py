"""The reference's modules without its weights: what an architecture's configuration does not tell."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from basert.errors import ExportError
from export.checkpoint import first_line


def skeleton(config: Any) -> Any:
    """transformers' causal language model on the meta device."""
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # an architecture's own code
        raise ExportError(f"transformers has no causal language model of it: {first_line(error)}.") from None


def rotary_module(config: Any) -> tuple[Any, Callable[..., Any] | None]:
    """What makes cos and sin, with real buffers, and what rotates with them, if it has the usual name.

    Raises ExportError when the architecture has no such module.
    """
    model = skeleton(config)
    for module in model.modules():
        if type(module).__name__.endswith("RotaryEmbedding"):
            rotate = getattr(sys.modules[type(module).__module__], "apply_rotary_pos_emb", None)
            return type(module)(config=module.config), rotate
    raise ExportError(f"{type(model).__name__} has no rotary position embedding; basert cannot serve it.")


def embedding_scale(config: Any) -> float | None:
    """What token embeddings are multiplied with, where that is a number of the embedding module (Gemma)."""
    scale = getattr(skeleton(config).get_input_embeddings(), "scalar_embed_scale", None)
    return None if scale is None else float(scale)
