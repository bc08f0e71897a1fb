"""Static slots: GroupQueryAttention reads lengths from graph inputs instead of deriving them from a mask.

attention_mask[batch, total]  ->  seqlens_k[batch] i32 (past + new - 1), total_seq[] i32 (largest past + new)
past/present [batch, heads, past | past + new, dim]  ->  [batch, heads, max_len, dim], bound to one address
"""

from __future__ import annotations

import onnx_ir as ir

from basert.errors import ExportError
from export.passes.anatomy import attentions
from export.passes.editing import Editor, prune

SEQLENS, TOTAL = 5, 6  # GroupQueryAttention's inputs


def static_slots(model: ir.Model) -> None:
    editor = Editor(model)
    seqlens = editor.graph_input("seqlens_k", ir.DataType.INT32, ["batch"])
    total = editor.graph_input("total_seq", ir.DataType.INT32, [])
    for node in attentions(model):
        node.replace_input_with(SEQLENS, seqlens)
        node.replace_input_with(TOTAL, total)
    prune(model)
    _keep_inputs(model.graph)
    for value in [*model.graph.inputs, *model.graph.outputs]:
        if value.name.startswith(("past_key_values.", "present.")):
            value.shape = ir.Shape(["batch", value.shape[1], "max_len", value.shape[3]])
        elif value.name == "input_ids":
            value.shape = ir.Shape(["batch", "chunk"])


def _keep_inputs(graph: ir.Graph) -> None:
    """Order the inputs; one that is still read and that the engine does not know is refused."""
    ours = {"input_ids": 0, "seqlens_k": 1, "total_seq": 2}
    kept = [value for value in graph.inputs if value.name in ours]
    past = [value for value in graph.inputs if value.name.startswith("past_key_values.")]
    for value in graph.inputs:
        if value not in kept and value not in past and value.uses():
            raise ExportError(
                f"The exported graph computes its attention from the input {value.name!r} outside of "
                "GroupQueryAttention; basert cannot serve this architecture."
            )
    graph.inputs[:] = sorted(kept, key=lambda value: ours[value.name]) + past
