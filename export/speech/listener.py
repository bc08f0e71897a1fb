"""The listener: Whisper's encoder, and what the decoder's cross-attention wants of it, once a window.

inputs   features[rows, mels, 2 * frames] f32
outputs  cross.{i}.key, cross.{i}.value [rows, heads, frames, head_dim] f32, for every decoder layer i
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from export.speech.blocks import Builder, Weights


def build_listener(config: Any, weights: Weights) -> ir.Model:
    """`config`: transformers' WhisperConfig."""
    builder = Builder(weights, config.encoder_attention_heads)
    frames = config.max_source_positions
    shape: list[int | str] = ["rows", config.num_mel_bins, 2 * frames]
    features = builder.editor.graph_input("features", ir.DataType.FLOAT, shape)
    x = builder.add("Transpose", _convolved(builder, features), perm=[0, 2, 1])
    positions = weights["encoder.embed_positions.weight"]
    x = builder.add("Add", x, builder.constant("encoder.embed_positions.weight", positions))
    for number in range(config.encoder_layers):
        x = _layer(builder, x, f"encoder.layers.{number}")
    x = builder.norm(x, "encoder.layer_norm")
    builder.heads = config.decoder_attention_heads
    shape = ["rows", builder.heads, frames, config.d_model // builder.heads]
    for number in range(config.decoder_layers):
        for kind in ("key", "value"):
            module = f"decoder.layers.{number}.encoder_attn.{kind[0]}_proj"
            builder.output(f"cross.{number}.{kind}", builder.split_heads(builder.linear(x, module)), shape)
    return builder.model


def _convolved(builder: Builder, x: ir.Value) -> ir.Value:
    """[rows, mels, 2 * frames] -> [rows, channels, frames]"""
    for number, stride in ((1, 1), (2, 2)):
        name = f"encoder.conv{number}"
        parts = [
            builder.constant(f"{name}.{kind}", builder.weights[f"{name}.{kind}"])
            for kind in ("weight", "bias")
        ]
        x = builder.add("Gelu", builder.add("Conv", x, *parts, pads=[1, 1], strides=[stride]))
    return x


def _layer(builder: Builder, x: ir.Value, name: str) -> ir.Value:
    h, attention = builder.norm(x, f"{name}.self_attn_layer_norm"), f"{name}.self_attn"
    dim = builder.weights[f"{attention}.q_proj.weight"].shape[0] // builder.heads
    q = builder.split_heads(builder.linear(h, f"{attention}.q_proj", dim**-0.5))
    k = builder.split_heads(builder.linear(h, f"{attention}.k_proj"), (0, 2, 3, 1))
    v = builder.split_heads(builder.linear(h, f"{attention}.v_proj"))
    seen = builder.attention(q, k, v)
    x = builder.add("Add", x, builder.linear(seen, f"{attention}.out_proj"))
    h = builder.norm(x, f"{name}.final_layer_norm")
    return builder.add("Add", x, builder.mlp(h, name))
