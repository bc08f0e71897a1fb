"""x * Sigmoid(x), the SiLU of most gated MLPs, in one node: QuickGelu with alpha 1."""

from __future__ import annotations

import onnx_ir as ir

from export.passes.editing import MICROSOFT, Editor, consumers, prune


def fuse_silu(model: ir.Model) -> None:
    """Fuses every Sigmoid that is only multiplied with its own input; any other stays as it is, and right."""
    editor = Editor(model)
    for node in list(model.graph):
        users = consumers(node.outputs[0])
        if node.op_type != "Sigmoid" or len(users) != 1 or users[0].op_type != "Mul":
            continue
        if node.inputs[0] in users[0].inputs:
            fused = editor.insert(users[0], "QuickGelu", node.inputs[0], domain=MICROSOFT, alpha=1.0)
            users[0].outputs[0].replace_all_uses_with(fused)
    prune(model)
