"""What the slot graph answers: next_token[rows] i64 (ArgMax) and logits[rows, vocab] f32."""

from __future__ import annotations

import onnx_ir as ir

from export.passes.editing import prune


def answer_tokens(model: ir.Model) -> None:
    outputs = model.graph.outputs
    logits = next(value for value in outputs if value.name == "logits")
    logits.shape = ir.Shape(["rows", logits.shape[-1]])
    best = ir.node("ArgMax", [logits], attributes={"axis": -1, "keepdims": 0}, name="basert/ArgMax")
    model.graph.append(best)
    token = best.outputs[0]
    token.name, token.type, token.shape = "next_token", ir.TensorType(ir.DataType.INT64), ir.Shape(["rows"])
    outputs[:] = [token, logits, *(value for value in outputs if value.name.startswith("present."))]
    prune(model)
