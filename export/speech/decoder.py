"""The decoder of a Whisper as a slot graph that hears: export.graph's, with cross-attention.

inputs   input_ids[batch, chunk] i64, seqlens_k[batch] i32, total_seq[] i32, logits_idx[rows] i64,
         align_idx[aligned] i64, if there are alignment heads: positions as in logits_idx, maybe none,
         past_key_values.{i}.key/.value [batch, heads, max_len, head_dim] f32,
         cross.{i}.key/.value [batch, heads, frames, head_dim] f32: the listener's
outputs  next_token[rows] i64, logits[rows, vocab] f32, present.{i}.key/.value (bound to the past's address),
         alignment[aligned, alignment heads, frames] f32: what those heads attend to, if there are any
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from export.passes.editing import MICROSOFT
from export.passes.outputs import answer_tokens
from export.speech.blocks import Builder, Weights

KINDS = ("key", "value")
EMBEDDING = "decoder.embed_tokens.weight"


def build_decoder(config: Any, weights: Weights, alignment: Sequence[tuple[int, int]]) -> ir.Model:
    """config: transformers' WhisperConfig; alignment: (layer, head) of each alignment head."""
    decoder = _Decoder(config, weights, alignment)
    x = decoder.embedded()
    for number in range(config.decoder_layers):
        x = decoder.layer(x, number)
    decoder.answer(x)
    answer_tokens(decoder.builder.model)
    return decoder.builder.model


class _Decoder:
    def __init__(self, config: Any, weights: Weights, alignment: Sequence[tuple[int, int]]) -> None:
        self.builder = Builder(weights, config.decoder_attention_heads)
        self.config, self.weights, self.alignment = config, weights, alignment
        self.dim = config.d_model // config.decoder_attention_heads
        integer, index = ir.DataType.INT64, ir.DataType.INT32
        new = self.builder.editor.graph_input
        self.ids = new("input_ids", integer, ["batch", "chunk"])
        self.seqlens, self.total = new("seqlens_k", index, ["batch"]), new("total_seq", index, [])
        self.rows = new("logits_idx", integer, ["rows"])
        self.wanted = new("align_idx", integer, ["aligned"]) if alignment else None
        self.past = self._by_layer("past_key_values", "max_len")
        self.cross = self._by_layer("cross", config.max_source_positions)
        self.present: dict[str, ir.Value] = {}
        self.aligned: list[ir.Value] = []  # of each layer with alignment heads: [aligned, its heads, frames]
        self.chunk = self.builder.add("Squeeze", self.builder.add("Shape", self.ids, start=1, end=2))

    def embedded(self) -> ir.Value:
        """Tokens and their positions: [batch, chunk, channels]."""
        add, places = self.builder.add, "decoder.embed_positions.weight"
        tokens = add("Gather", self._weight(EMBEDDING), self.ids, axis=0)
        return add("Add", tokens, add("Gather", self._weight(places), self._positions(), axis=0))

    def layer(self, x: ir.Value, number: int) -> ir.Value:
        builder, name = self.builder, f"decoder.layers.{number}"
        h = builder.norm(x, f"{name}.self_attn_layer_norm")
        x = builder.add("Add", x, self._self_attention(h, number))
        h = builder.norm(x, f"{name}.encoder_attn_layer_norm")
        x = builder.add("Add", x, self._cross_attention(h, number))
        h = builder.norm(x, f"{name}.final_layer_norm")
        return builder.add("Add", x, builder.mlp(h, name))

    def answer(self, x: ir.Value) -> None:
        """Logits of the wanted rows, the cache, and what alignment heads saw."""
        builder = self.builder
        chosen = builder.add("Gather", builder.add("Flatten", x, axis=2), self.rows, axis=0)
        last = builder.norm(chosen, "decoder.layer_norm")
        logits = builder.add("Gemm", last, self._weight(EMBEDDING), transB=1)
        builder.output("logits", logits, ["rows", self.config.vocab_size])
        for name, value in self.present.items():
            builder.output(f"present.{name}", value, self._shape("max_len"))
        if self.aligned:
            shape = ["aligned", len(self.alignment), self.config.max_source_positions]
            builder.output("alignment", builder.add("Concat", *self.aligned, axis=1), shape)

    def _positions(self) -> ir.Value:
        """past + i, int64 [batch, chunk]. Where a first chunk is padded, seqlens_k is less than the chunk."""
        add, constant = self.builder.add, self.builder.constant
        zero, one = constant("zero", np.array(0)), constant("unit", np.array(1))
        ends = add("Add", add("Cast", self.seqlens, to=ir.DataType.INT64), one)
        past = add("Max", add("Sub", ends, self.chunk), zero)
        steps = add("Range", zero, self.chunk, one)
        return add("Add", add("Unsqueeze", past, constant("second", np.array([1]))), steps)

    def _self_attention(self, h: ir.Value, number: int) -> ir.Value:
        builder, name = self.builder, f"decoder.layers.{number}.self_attn"
        parts = [self.weights[f"{name}.{kind}_proj.weight"] for kind in "qkv"]
        biases = [self.weights.get(f"{name}.{kind}_proj.bias", np.zeros_like(parts[0][0])) for kind in "qkv"]
        qkv = builder.product(h, f"{name}.qkv_proj", np.concatenate(parts), np.concatenate(biases))
        past = [self.past[f"{number}.{kind}"] for kind in KINDS]
        inputs = [qkv, None, None, *past, self.seqlens, self.total]
        settings = {"num_heads": builder.heads, "kv_num_heads": builder.heads, "scale": self.dim**-0.5}
        out, *present = builder.editor.insert_many(
            None, "GroupQueryAttention", inputs, 3, domain=MICROSOFT, **settings
        )
        self.present |= {f"{number}.{kind}": value for kind, value in zip(KINDS, present, strict=True)}
        return builder.linear(out, f"{name}.out_proj")

    def _cross_attention(self, h: ir.Value, number: int) -> ir.Value:
        builder, name = self.builder, f"decoder.layers.{number}.encoder_attn"
        keys, values = (self.cross[f"{number}.{kind}"] for kind in KINDS)
        q = builder.heads_of(builder.linear(h, f"{name}.q_proj", self.dim**-0.5))
        if heads := [head for layer, head in self.alignment if layer == number]:
            self.aligned.append(self._attended(q, keys, heads))
        turned = builder.add("Transpose", keys, perm=[0, 1, 3, 2])  # fused into the product
        heard = builder.attention(builder.add("Transpose", q, perm=[0, 2, 1, 3]), turned, values)
        return builder.linear(heard, f"{name}.out_proj")

    def _attended(self, q: ir.Value, keys: ir.Value, heads: Sequence[int]) -> ir.Value:
        """What these heads attend to at the wanted positions. It is computed once more: where nobody wants
        it, that takes no time, and attention need not give its weights away.

        q [batch, chunk, heads, dim], keys [batch, heads, frames, dim] -> [aligned, len(heads), frames]
        """
        add, constant = self.builder.add, self.builder.constant
        chosen = constant("heads." + ".".join(map(str, heads)), np.array(heads))
        flat = add("Reshape", q, constant("shape.flat", np.array([-1, self.builder.heads, self.dim])))
        theirs = add("Gather", keys, add("Div", self.wanted, self.chunk), axis=0)
        queries, seen = add("Gather", flat, self.wanted, axis=0), add("Gather", theirs, chosen, axis=1)
        third = constant("third", np.array([2]))
        row = add("Unsqueeze", add("Gather", queries, chosen, axis=1), third)
        floats = add("Cast", seen, to=ir.DataType.FLOAT)  # what is heard may come in 8 bits
        scores = add("MatMul", row, add("Transpose", floats, perm=[0, 1, 3, 2]))
        return add("Squeeze", add("Softmax", scores, axis=-1), third)

    def _weight(self, name: str) -> ir.Value:
        return self.builder.constant(name, self.weights[name])

    def _by_layer(self, name: str, length: int | str) -> dict[str, ir.Value]:
        """float32 graph inputs by "{layer}.{kind}"."""
        names = [f"{layer}.{kind}" for layer in range(self.config.decoder_layers) for kind in KINDS]
        new, shape = self.builder.editor.graph_input, self._shape(length)
        return {which: new(f"{name}.{which}", ir.DataType.FLOAT, shape) for which in names}

    def _shape(self, length: int | str) -> list[int | str]:
        return ["batch", self.config.decoder_attention_heads, length, self.dim]
