"""The scale of the token embeddings to full precision: mobius rounds Gemma's square root to 16 bits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from basert.errors import ExportError
from export.passes.anatomy import embedding
from export.passes.editing import Editor, array_of, consumers, prune


def scale_embedding(model: ir.Model, scale: float | None) -> None:
    """`scale` is the reference's; None leaves the graph as it is."""
    if scale is None:
        return
    users = consumers(embedding(model).outputs[0])
    factor = array_of(users[0].inputs[1]) if len(users) == 1 and users[0].op_type == "Mul" else None
    if factor is None or factor.size != 1 or not np.isclose(factor, scale, rtol=1e-2):
        raise ExportError(f"The exported graph does not scale its token embeddings by {scale:.6g}.")
    users[0].replace_input_with(1, Editor(model).constant("embedding.scale", np.float32(scale)))
    prune(model)
