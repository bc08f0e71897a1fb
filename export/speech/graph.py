"""SpeechFromCheckpoint: a prepared Whisper checkpoint becomes its two fp32 graphs, built from its weights.

export/speech/listener.py and decoder.py say what goes in and out. In a folder they lie as listener.onnx and
as a decoder's graph (export.graph), each with its weights and what is to be known of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import onnx_ir as ir
import torch

from basert.errors import ExportError
from basert.manifest import Speech, Tensor, write_json
from export.checkpoint import first_line, read_config
from export.graph import Decoder, context_length, kv_cache, save, save_graph, tensors
from export.speech.blocks import Weights
from export.speech.decoder import build_decoder
from export.speech.describe import alignment_heads, describe
from export.speech.listener import build_listener

GRAPH = "listener.onnx"
OPENVINO = "listener.openvino.onnx"  # where OpenVINO has a graph of its own
LISTENER = "listener.json"
EXPORTER = "basert"


class Listener(msgspec.Struct, frozen=True):
    """What the other export steps and the manifest need to know of the listener."""

    speech: Speech  # its parity is not measured yet
    inputs: list[Tensor]
    outputs: list[Tensor]


def speech_from_checkpoint(checkpoint: Path, out: Path, *, max_context: int | None = None) -> None:
    """Write both fp32 graphs with their descriptions into folder `out`.

    Raises ExportError for what is no Whisper as OpenAI made them, for missing weights, and for a max_context
    beyond the checkpoint's.
    """
    config = read_config(checkpoint)
    check_config(config)
    length = context_length(max_context, config.max_target_positions)
    speech, heads = describe(checkpoint, config), alignment_heads(checkpoint, config)
    weights = _weights(checkpoint)
    listener = build_listener(config, weights)
    save_listener(listener, described(listener, speech), out)
    decoder = build_decoder(config, weights, heads)
    save(decoder, _decoder(config, decoder, length), out)


def check_config(config: Any) -> None:
    """Raises ExportError for a Whisper with parts that no checkpoint of OpenAI's has."""
    expected = {"activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": True}
    for name, value in expected.items():
        if getattr(config, name) != value:
            raise ExportError(
                f"This Whisper has {name} = {getattr(config, name)!r}; basert builds those with {value!r}."
            )


def load_model(checkpoint: Path) -> Any:
    """transformers' own model in fp32, with attention in plain products. Raises ExportError."""
    from transformers import WhisperForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return WhisperForConditionalGeneration.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation="eager", local_files_only=True
        ).eval()
    except Exception as error:  # safetensors, transformers and torch each raise their own
        raise ExportError(f"transformers cannot load {checkpoint}: {first_line(error)}.") from error


def save_listener(model: ir.Model, listener: Listener, folder: Path, name: str = GRAPH) -> None:
    save_graph(model, folder / name)
    write_json(folder / LISTENER, listener)


def described(model: ir.Model, speech: Speech) -> Listener:
    return Listener(speech, tensors(model.graph.inputs), tensors(model.graph.outputs))


def read_listener(folder: Path) -> Listener:
    """The description that `save_listener` left in `folder`."""
    return msgspec.json.decode((folder / LISTENER).read_bytes(), type=Listener)


def _weights(checkpoint: Path) -> Weights:
    state = load_model(checkpoint).model.state_dict()
    return {name: tensor.numpy() for name, tensor in state.items()}


def _decoder(config: Any, model: ir.Model, length: int) -> Decoder:
    return Decoder(
        architecture=(config.architectures or ["WhisperForConditionalGeneration"])[0],
        model_type=config.model_type,
        exporter=EXPORTER,
        vocab_size=config.vocab_size,
        max_context=length,
        window=None,
        kv_cache=kv_cache(model),
        inputs=tensors(model.graph.inputs),
        outputs=tensors(model.graph.outputs),
    )
