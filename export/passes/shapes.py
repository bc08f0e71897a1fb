"""Shapes that torch's exporter computes at run time, as constants: reshapes leave rows and tokens alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.passes.editing import Editor, prune


def constant_reshapes(model: ir.Model) -> None:
    """A Reshape's target as a constant: 0 for what stays, -1 for one other size that is not known before."""
    editor = Editor(model)
    for node in model.graph:
        if node.op_type != "Reshape" or node.inputs[1].is_initializer():
            continue
        target = _target(node.inputs[0].shape, node.outputs[0].shape)
        if target is not None:
            name = "shape." + "x".join(map(str, target)).replace("-", "_")
            node.replace_input_with(1, editor.constant(name, np.array(target, np.int64)))
            node.attributes.pop("allowzero", None)
    prune(model)


def _target(source: ir.Shape | None, made: ir.Shape | None) -> list[int] | None:
    if source is None or made is None:
        return None
    target = []
    for axis, size in enumerate(made):
        if isinstance(size, int):
            target.append(size)
        elif axis < len(source) and size.value is not None and source[axis] == size:
            target.append(0)
        else:
            target.append(-1)
    return target if target.count(-1) <= 1 else None
