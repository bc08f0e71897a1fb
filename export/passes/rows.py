"""Only the rows that need logits go on: logits_idx[rows] i64 indexes the flattened [batch * chunk] positions.

The cut is right after the last attention, so that a prefill chunk skips the last layer's projections and MLP;
where something behind it does not work row by row, the cut is right before the head.
"""

from __future__ import annotations

import onnx_ir as ir

from basert.errors import ExportError
from export.passes.anatomy import NORMS, Linear, attentions, head, is_constant
from export.passes.editing import Editor, reached

ROWWISE = {"Add", "Sub", "Mul", "Div", "Tanh", "Sigmoid", "Gelu", "QuickGelu", "Relu", "Pow", "Clip", *NORMS}


def gather_rows(model: ir.Model) -> None:
    editor = Editor(model)
    rows = editor.graph_input("logits_idx", ir.DataType.INT64, ["rows"])
    model.graph.inputs.insert(3, model.graph.inputs.pop())
    behind = _reachable(attentions(model)[-1].outputs[0])
    if not all(_is_rowwise(node) for node in behind):
        behind = _from_head(head(model))
    for value in _crossing(behind):
        first = next(node for node in behind if value in node.inputs)
        flat = editor.insert(first, "Flatten", value, axis=2)
        chosen = editor.insert(first, "Gather", flat, rows, axis=0)
        for node in behind:
            for index, source in enumerate(node.inputs):
                if source is value:
                    node.replace_input_with(index, chosen)
    for value in (output for node in behind for output in node.outputs):
        if not value.is_graph_output():
            value.shape = None  # has lost a dimension


def _reachable(value: ir.Value) -> list[ir.Node]:
    """All nodes that `value` reaches, in the order of execution."""
    found = reached(value)
    return [node for node in value.producer().graph if node in found]


def _from_head(linear: Linear) -> list[ir.Node]:
    behind = [linear.node, *_reachable(linear.node.outputs[0])]
    if not all(_is_rowwise(node) for node in behind):
        raise ExportError(
            "The exported graph does more than row by row work behind its head; basert cannot serve it."
        )
    return behind


def _is_rowwise(node: ir.Node) -> bool:
    if node.op_type == "Split":
        return bool(node.attributes.get_int("axis", 0) == -1)
    if node.op_type in ("MatMul", "Gemm"):
        return is_constant(node.inputs[1])
    return bool(node.op_type in ROWWISE)


def _crossing(behind: list[ir.Node]) -> list[ir.Value]:
    """What the nodes read from before the cut, constants aside: attention, the residual stream."""
    made = {output for node in behind for output in node.outputs}
    values = [value for node in behind for value in node.inputs if not is_constant(value)]
    return list(dict.fromkeys(value for value in values if value not in made))
