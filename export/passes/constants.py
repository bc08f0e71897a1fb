"""Folds what the exporter left to be added at run time: Gemma stores its norm weights less one."""

from __future__ import annotations

import onnx_ir as ir

from export.passes.editing import Editor, array_of, prune


def fold_sums(model: ir.Model) -> None:
    """Every Add of two initializers becomes one initializer."""
    editor = Editor(model)
    for node in model.graph:
        left, right = (array_of(value) for value in node.inputs) if node.op_type == "Add" else (None, None)
        if left is not None and right is not None:
            folded = editor.constant(f"{node.inputs[0].name}.plus", left + right)
            node.outputs[0].replace_all_uses_with(folded)
    prune(model)
