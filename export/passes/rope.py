"""Rope tables and attention windows layer by layer, as transformers computes them.

mobius gives every layer of one kind of model the same table (Gemma 3: the local one) and knows windows only
where all layers slide; so both are always set here, from the reference's own module.
"""

from __future__ import annotations

import onnx_ir as ir

from basert.errors import ExportError
from export.passes.anatomy import attentions
from export.passes.editing import Editor, prune
from export.positions import Positions

COS, SIN = 7, 8  # GroupQueryAttention's inputs


def set_positions(model: ir.Model, positions: Positions) -> None:
    """Raises ExportError when the graph has another number of layers.

    A layer that does not rotate stays so: SmolLM3 has some. None rotates outside of its attention, for that
    would read position ids, which the slots pass refuses.
    """
    editor = Editor(model)
    nodes = attentions(model)
    if len(nodes) != len(positions.layers):
        raise ExportError(
            f"The exported graph has {len(nodes)} attentions for {len(positions.layers)} layers."
        )
    for node, layer in zip(nodes, positions.layers, strict=True):
        node.attributes.add(ir.AttrInt64("local_window_size", layer.window or -1))
        if node.attributes.get_int("do_rotary", 0) != 1:
            continue
        table = positions.tables[layer.kind]
        node.replace_input_with(COS, editor.constant(f"rope.{layer.kind}.cos", table.cos))
        node.replace_input_with(SIN, editor.constant(f"rope.{layer.kind}.sin", table.sin))
        node.attributes.add(ir.AttrInt64("rotary_interleaved", int(table.interleaved)))
        node.attributes.pop("rotary_embedding_dim", None)  # the table's width says it; onnxruntime has none
    prune(model)
