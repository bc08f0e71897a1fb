"""What the slot graph answers: next_token[rows] i64 (ArgMax) and logits[rows, vocab] f32."""

from __future__ import annotations

import onnx_ir as ir

from export.passes.editing import Editor, prune


def answer_tokens(model: ir.Model) -> None:
    editor = Editor(model)
    logits = next(value for value in model.graph.outputs if value.name == "logits")
    logits.shape = ir.Shape(["rows", logits.shape[-1]])
    last = list(model.graph)[-1]
    token = editor.insert(last, "ArgMax", logits, axis=-1, keepdims=0)
    model.graph.remove(token.producer())
    model.graph.append(token.producer())
    token.name, token.type, token.shape = "next_token", ir.TensorType(ir.DataType.INT64), ir.Shape(["rows"])
    present = [value for value in model.graph.outputs if value.name.startswith("present.")]
    model.graph.outputs[:] = [token, logits, *present]
    prune(model)
