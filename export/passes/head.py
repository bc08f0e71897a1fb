"""A head tied to the embedding reads the embedding's own matrix: Gemm(x, embedding[vocab, hidden], transB=1).

The exporter writes MatMul(x, Transpose(embedding)), which onnxruntime would fold into a second copy.
"""

from __future__ import annotations

import onnx_ir as ir

from export.passes.editing import Editor, array_of, prune


def tie_head(model: ir.Model) -> None:
    """Gemm wants two dimensions: the rows pass must follow."""
    editor = Editor(model)
    for node in list(model.graph):
        turned = node.inputs[1].producer() if node.op_type == "MatMul" else None
        if turned is None or turned.op_type != "Transpose" or array_of(turned.inputs[0]) is None:
            continue
        product = editor.insert(node, "Gemm", node.inputs[0], turned.inputs[0], transB=1)
        editor.take_over(node.outputs[0], product)
    prune(model)
