"""The decoder of a Whisper as a slot graph that hears: export.graph's, with cross-attention.

inputs   input_ids[batch, chunk] i64, seqlens_k[batch] i32, total_seq[] i32, logits_idx[rows] i64,
         past_key_values.{i}.key/.value [batch, heads, max_len, head_dim] f32,
         cross.{i}.key/.value [batch, heads, frames, head_dim] f32: the listener's
outputs  next_token[rows] i64, logits[rows, vocab] f32, present.{i}.key/.value (bound to the past's address),
         alignment[rows, alignment heads, frames] f32: what those heads attend to, if there are any
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


def build_decoder(config: Any, weights: Weights, alignment: Sequence[tuple[int, int]]) -> ir.Model:
    """config: transformers' WhisperConfig; alignment: (layer, head) of each alignment head."""
    decoder = _Decoder(config, weights)
    x, seen = decoder.embedded(), []
    for number in range(config.decoder_layers):
        heads = [head for layer, head in alignment if layer == number]
        x, weighed = decoder.layer(x, number)
        seen += [decoder.chosen_heads(weighed, heads)] if heads else []
    decoder.answer(x)
    if seen:
        decoder.align(seen, len(alignment))
    answer_tokens(decoder.builder.model)
    return decoder.builder.model


class _Decoder:
    def __init__(self, config: Any, weights: Weights) -> None:
        self.builder = Builder(weights, config.decoder_attention_heads)
        self.config, self.weights = config, weights
        self.dim = config.d_model // config.decoder_attention_heads
        integer, index, floats = ir.DataType.INT64, ir.DataType.INT32, ir.DataType.FLOAT
        new = self.builder.editor.graph_input
        self.ids = new("input_ids", integer, ["batch", "chunk"])
        self.seqlens, self.total = new("seqlens_k", index, ["batch"]), new("total_seq", index, [])
        self.rows = new("logits_idx", integer, ["rows"])
        self.past, self.cross = (
            {
                f"{layer}.{kind}": new(f"{name}.{layer}.{kind}", floats, self._shape(length))
                for layer in range(config.decoder_layers)
                for kind in KINDS
            }
            for name, length in (("past_key_values", "max_len"), ("cross", config.max_source_positions))
        )
        self.present: dict[str, ir.Value] = {}

    def embedded(self) -> ir.Value:
        """Tokens and their positions: [batch, chunk, channels]."""
        add, constant = self.builder.add, self.builder.constant
        places = self.weights["decoder.embed_positions.weight"]
        positions = constant("decoder.embed_positions.weight", places)
        tokens = add("Gather", self._table(), self.ids, axis=0)
        return add("Add", tokens, add("Gather", positions, self._positions()))

    def _table(self) -> ir.Value:
        """The embedding, to which the head is tied: float32 [vocab, channels]."""
        name = "decoder.embed_tokens.weight"
        return self.builder.constant(name, self.weights[name])

    def _positions(self) -> ir.Value:
        """past + i, int64 [batch, chunk]. Where a first chunk is padded, seqlens_k is less than the chunk."""
        add, constant = self.builder.add, self.builder.constant
        chunk = add("Squeeze", add("Shape", self.ids, start=1, end=2))
        ends = add("Add", add("Cast", self.seqlens, to=ir.DataType.INT64), constant("one.i64", np.array(1)))
        past = add("Max", add("Sub", ends, chunk), constant("zero.i64", np.array(0)))
        steps = add("Range", constant("zero.i64", np.array(0)), chunk, constant("one.i64", np.array(1)))
        return add("Add", add("Unsqueeze", past, constant("column", np.array([1]))), steps)

    def layer(self, x: ir.Value, number: int) -> tuple[ir.Value, ir.Value]:
        """What leaves the layer, and the cross-attention's weights [batch, heads, chunk, frames]."""
        builder, name = self.builder, f"decoder.layers.{number}"
        h = builder.norm(x, f"{name}.self_attn_layer_norm")
        x = builder.add("Add", x, self._self_attention(h, number))
        h = builder.norm(x, f"{name}.encoder_attn_layer_norm")
        q = builder.split_heads(builder.linear(h, f"{name}.encoder_attn.q_proj", self.dim**-0.5))
        keys = builder.add(
            "Transpose", self.cross[f"{number}.key"], perm=[0, 1, 3, 2]
        )  # fused into the product
        heard, weights = builder.attention(q, keys, self.cross[f"{number}.value"])
        x = builder.add("Add", x, builder.linear(heard, f"{name}.encoder_attn.out_proj"))
        h = builder.norm(x, f"{name}.final_layer_norm")
        return builder.add("Add", x, builder.mlp(h, name)), weights

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

    def answer(self, x: ir.Value) -> None:
        """Logits of the wanted rows, and the cache."""
        builder = self.builder
        chosen = builder.add("Gather", builder.add("Flatten", x, axis=2), self.rows, axis=0)
        logits = builder.add("Gemm", builder.norm(chosen, "decoder.layer_norm"), self._table(), transB=1)
        builder.output("logits", logits, ["rows", self.config.vocab_size])
        for name, value in self.present.items():
            builder.output(f"present.{name}", value, self._shape("max_len"))

    def chosen_heads(self, weights: ir.Value, heads: Sequence[int]) -> ir.Value:
        """float32 [batch, len(heads), chunk, frames]"""
        name = "heads." + ".".join(map(str, heads))
        return self.builder.add("Gather", weights, self.builder.constant(name, np.array(heads)), axis=1)

    def align(self, seen: list[ir.Value], heads: int) -> None:
        builder, frames = self.builder, self.config.max_source_positions
        together = builder.add("Concat", *seen, axis=1) if len(seen) > 1 else seen[0]
        standing = builder.add("Transpose", together, perm=[0, 2, 1, 3])
        shape = builder.constant("shape.alignment", np.array([-1, heads, frames]))
        rows = builder.add("Gather", builder.add("Reshape", standing, shape), self.rows, axis=0)
        builder.output("alignment", rows, ["rows", heads, frames])

    def _shape(self, length: int | str) -> list[int | str]:
        return ["batch", self.config.decoder_attention_heads, length, self.dim]
