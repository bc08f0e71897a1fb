"""EncoderFromCheckpoint: a prepared checkpoint folder becomes the fp32 encoder graph.

inputs   input_ids[rows, tokens] i64, attention_mask[rows, tokens] i64, padding on the right;
         token_type_ids[rows, tokens] i64 where a pair's second text is told by it
outputs  values[rows, width] f32: vectors, or a classifier's logits
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import onnx_ir as ir
import torch

from basert.errors import ExportError
from basert.manifest import Encoder, Tensor, write_json
from export.checkpoint import first_line, read_config
from export.encoders.describe import describe
from export.encoders.module import EncoderModule, load_model
from export.encoders.settings import read_settings
from export.passes.attention import fold_attention
from export.passes.mask import plain_mask
from export.passes.residual import subtract_layers
from export.passes.shapes import constant_reshapes

GRAPH = "encoder.onnx"
DATA = f"{GRAPH}.data"
ENCODER = "encoder.json"
OPSET = 21  # the first whose QuantizeLinear takes blocks


class EncoderGraph(msgspec.Struct, frozen=True):
    """What the other export steps and the manifest need to know of an encoder graph."""

    architecture: str  # "BertModel"
    model_type: str  # "bert"
    exporter: str  # "torch.onnx 2.13.0"
    vocab_size: int
    encoder: Encoder  # its parity is not measured yet
    inputs: list[Tensor]
    outputs: list[Tensor]


def encoder_from_checkpoint(checkpoint: Path, out: Path, *, max_tokens: int | None = None) -> EncoderGraph:
    """Write the fp32 graph (GRAPH, DATA, ENCODER) into folder `out` and describe it.

    max_tokens None: the longest input that the checkpoint allows. Raises ExportError for an architecture that
    cannot be exported, for missing weights, and for a max_tokens beyond the checkpoint's.
    """
    config, settings = read_config(checkpoint), read_settings(checkpoint)
    module = EncoderModule(load_model(checkpoint, settings.task), settings).eval()
    encoder = describe(checkpoint, module, settings, max_tokens)
    model = _traced(module, encoder, checkpoint)
    constant_reshapes(model)
    plain_mask(model)
    fold_attention(model)
    subtract_layers(model)
    graph = EncoderGraph(
        architecture=type(module.model).__name__,
        model_type=config.model_type,
        exporter=f"torch.onnx {torch.__version__.partition('+')[0]}",
        vocab_size=int(module.model.get_input_embeddings().num_embeddings),
        encoder=encoder,
        inputs=[Tensor(value.name, "int64", ["rows", "tokens"]) for value in model.graph.inputs],
        outputs=[Tensor("values", "float32", ["rows", encoder.width])],
    )
    save(model, graph, out)
    return graph


def save(model: ir.Model, graph: EncoderGraph, folder: Path) -> None:
    """Write graph, weights and description; nothing in them names this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    model.graph.name = "encoder"
    model.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
        for value in node.outputs:
            if not value.is_graph_output():  # passes have changed what the exporter knew of them
                value.shape = value.type = None
    for value in [*model.graph.inputs, *model.graph.outputs]:
        value.metadata_props.clear()
    ir.save(model, folder / GRAPH, external_data=DATA, size_threshold_bytes=1024)
    write_json(folder / ENCODER, graph)


def read_encoder(folder: Path) -> EncoderGraph:
    """The description that `save` left in `folder`."""
    return msgspec.json.decode((folder / ENCODER).read_bytes(), type=EncoderGraph)


def _traced(module: EncoderModule, encoder: Encoder, checkpoint: Path) -> ir.Model:
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if encoder.token_types else [])]
    axes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens", max=encoder.max_tokens)}
    example = [torch.ones(2, 7, dtype=torch.int64) for _ in names]
    example[1][1, 4:] = 0
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                module,
                tuple(example),
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=["values"],
                dynamic_shapes=(axes,) * len(names),
                verbose=False,
            )
    except Exception as error:  # torch's exporter raises anything
        raise ExportError(f"{checkpoint} cannot be exported: {first_line(error)}.") from error
    model: ir.Model = program.model
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter prints, logs and warns of what is settled here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
