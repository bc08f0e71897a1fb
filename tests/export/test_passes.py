"""Each pass on a graph of a few nodes: what it makes, and what it refuses."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from basert.errors import ExportError
from export.passes.activations import fuse_silu
from export.passes.anatomy import attentions, embedding, head, linears
from export.passes.constants import fold_sums
from export.passes.editing import Editor
from export.passes.head import tie_head
from export.passes.outputs import answer_tokens
from export.passes.rounding import BLOCK, LEVELS, eight_bits, four_bits
from export.passes.rows import gather_rows
from export.passes.scale import scale_embedding
from export.passes.slots import static_slots

VOCAB, HIDDEN = 11, 16

# A decoder of one layer as mobius writes it, cut down to what the passes look at.
DECODER = """
<ir_version: 10, opset_import: ["": 24, "com.microsoft": 1]>
decoder (int64[batch, seq] input_ids, int64[batch, total] attention_mask,
         float[batch, 1, past, 16] past_key, float[batch, 1, past, 16] past_value)
     => (float[batch, seq, 11] logits, float[batch, 1, total, 16] present_key,
         float[batch, 1, total, 16] present_value)
{
    x = Gather (table, input_ids)
    lengths = ReduceSum <keepdims = 0> (attention_mask, one)
    less = Sub (lengths, one)
    seqlens = Cast <to = 6> (less)
    shape = Shape (attention_mask)
    last = Gather (shape, one)
    total32 = Cast <to = 6> (last)
    weight = Add (offset, unit)
    n = RMSNormalization (x, weight)
    qkv = MatMul (n, w_qkv)
    a, present_key, present_value = com.microsoft.GroupQueryAttention
        <num_heads = 1, kv_num_heads = 1, do_rotary = 1>
        (qkv, , , past_key, past_value, seqlens, total32, cos, sin)
    o = MatMul (a, w_o)
    r, t1, t2, s = com.microsoft.SkipSimplifiedLayerNormalization (x, o, w_n)
    g = MatMul (r, w_g)
    sig = Sigmoid (g)
    act = Mul (g, sig)
    ACTED
    turned = Transpose <perm = [1, 0]> (table)
    logits = MatMul (d, turned)
}
"""
NAMES = {
    "past_key": "past_key_values.0.key",
    "past_value": "past_key_values.0.value",
    "present_key": "present.0.key",
    "present_value": "present.0.value",
}


def decoder(acted: str = "d = Mul (act, act)", text: str = DECODER) -> ir.Model:
    model = ir.from_onnx_text(text.replace("ACTED", acted))
    for value in [*model.graph.inputs, *model.graph.outputs]:
        value.name = NAMES.get(value.name, value.name)
    draw = np.random.default_rng(0)
    editor = Editor(model)
    shapes = {
        "table": (VOCAB, HIDDEN),
        "offset": (HIDDEN,),
        "w_qkv": (HIDDEN, 3 * HIDDEN),
        "w_o": (HIDDEN, HIDDEN),
        "w_n": (HIDDEN,),
        "w_g": (HIDDEN, HIDDEN),
        "cos": (8, HIDDEN // 2),
        "sin": (8, HIDDEN // 2),
    }
    arrays = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    arrays |= {"one": np.array([1]), "unit": np.float32(1)}
    for name, array in arrays.items():
        free = {value.name: value for node in model.graph for value in node.inputs if value is not None}
        if name in free:
            free[name].replace_all_uses_with(editor.constant(f"{name}.data", array))
    return model


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_the_anatomy_is_found() -> None:
    model = decoder()
    fold_sums(model)
    tie_head(model)
    assert [linear.name for linear in linears(model)] == ["w_qkv.data", "w_o.data", "w_g.data", "table.data"]
    assert head(model).transposed
    assert head(model).matrix().shape == (HIDDEN, VOCAB)
    assert embedding(model).inputs[0] is head(model).weight
    assert len(attentions(model)) == 1


def test_fold_sums_adds_what_gemma_stores_less_one() -> None:
    model = decoder()
    norm = next(node for node in model.graph if node.op_type == "RMSNormalization")
    before = model.graph.initializers["offset.data"].const_value.numpy()
    fold_sums(model)
    assert "Add" not in ops(model)
    assert np.array_equal(norm.inputs[1].const_value.numpy(), before + 1)


def test_fuse_silu_leaves_other_sigmoids_alone() -> None:
    model = decoder()
    fuse_silu(model)
    assert "Sigmoid" not in ops(model)
    assert ops(model).count("QuickGelu") == 1
    gated = decoder(acted="d = Mul (sig, act)")
    fuse_silu(gated)
    assert "Sigmoid" in ops(gated)


def test_static_slots_replaces_the_mask_by_lengths() -> None:
    model = decoder()
    static_slots(model)
    names = [value.name for value in model.graph.inputs]
    assert names == [
        "input_ids",
        "seqlens_k",
        "total_seq",
        "past_key_values.0.key",
        "past_key_values.0.value",
    ]
    node = attentions(model)[0]
    assert [value.name for value in node.inputs[5:7]] == ["seqlens_k", "total_seq"]
    assert "ReduceSum" not in ops(model)
    assert [str(size) for size in model.graph.outputs[1].shape] == ["batch", "1", "max_len", "16"]


def test_static_slots_refuses_a_mask_that_is_used_elsewhere() -> None:
    model = decoder(acted="m = Cast <to = 1> (lengths)\n d = Mul (act, m)")
    with pytest.raises(ExportError, match="'attention_mask' outside of GroupQueryAttention"):
        static_slots(model)


def prepared(acted: str) -> ir.Model:
    model = decoder(acted)
    static_slots(model)
    tie_head(model)
    return model


def test_rows_are_gathered_behind_the_last_attention() -> None:
    model = prepared("d = Mul (act, act)")
    gather_rows(model)
    answer_tokens(model)
    names = ops(model)
    assert names.count("Flatten") == 2, "the attention's output and the residual stream"
    assert (
        names.index("GroupQueryAttention")
        < names.index("Flatten")
        < names.index("SkipSimplifiedLayerNormalization")
    )
    assert [value.name for value in model.graph.inputs][:4] == [
        "input_ids",
        "seqlens_k",
        "total_seq",
        "logits_idx",
    ]
    assert [value.name for value in model.graph.outputs][:2] == ["next_token", "logits"]
    assert [str(size) for size in model.graph.outputs[1].shape] == ["rows", str(VOCAB)]


def test_rows_are_gathered_before_the_head_where_the_layer_mixes_them() -> None:
    model = prepared("d = CumSum (act, one)")
    gather_rows(model)
    names = ops(model)
    assert names.count("Flatten") == 1
    assert names.index("CumSum") < names.index("Flatten") < names.index("Gemm")


def test_logits_without_a_linear_layer_are_refused() -> None:
    model = decoder(text=DECODER.replace("logits = MatMul (d, turned)", "logits = Softmax (d)"))
    with pytest.raises(ExportError, match="logits do not come from a linear layer"):
        head(model)


def test_a_graph_without_grouped_attention_is_refused() -> None:
    text = re.sub(r"a, present_key.*?sin\)", "a = Identity (n)", DECODER, flags=re.DOTALL)
    text = re.sub(r"logits, float.*present_value\)", "logits)", text, flags=re.DOTALL)
    with pytest.raises(ExportError, match="without GroupQueryAttention"):
        attentions(decoder(text=text))


def test_the_embedding_scale_is_mended_or_missed() -> None:
    text = DECODER.replace(
        "x = Gather (table, input_ids)", "e = Gather (table, input_ids)\n x = Mul (e, scale)"
    )
    model = decoder(text=text)
    rounded = Editor(model).constant("scale.data", np.float32(np.float16(640**0.5)))
    free = next(node for node in model.graph if node.op_type == "Mul")
    free.replace_input_with(1, rounded)
    scale_embedding(model, 640**0.5)
    assert float(free.inputs[1].const_value.numpy()) == np.float32(640**0.5)
    with pytest.raises(ExportError, match=r"does not scale its token embeddings by 25\.2982"):
        scale_embedding(decoder(), 640**0.5)


def unpacked(packed: np.ndarray) -> np.ndarray:
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1).astype(np.float32)


def rounded_to_nearest(matrix: np.ndarray) -> np.ndarray:
    """4 bits over the whole range of each block, [in, out]."""
    blocks = matrix.T.reshape(matrix.shape[1], -1, BLOCK)
    low, high = np.minimum(blocks.min(-1, keepdims=True), 0), np.maximum(blocks.max(-1, keepdims=True), 0)
    scale = (high - low) / LEVELS
    zero = np.rint(-low / scale)
    steps = np.clip(np.rint(blocks / scale) + zero, 0, LEVELS) - zero
    return np.asarray((steps * scale).reshape(matrix.shape[1], -1).T)


def test_four_bits_hurt_an_output_less_than_rounding_to_nearest() -> None:
    draw = np.random.default_rng(0)
    matrix = draw.standard_t(4, (96, 40)).astype(np.float32)
    inputs = draw.standard_normal((256, 96)).astype(np.float32) * np.geomspace(0.1, 10, 96, dtype=np.float32)
    packed, scale, zero = four_bits(matrix, (inputs**2).sum(0))
    assert (packed.shape, scale.shape, zero.shape) == ((40, 3, BLOCK // 2), (40 * 3,), (40, 2))
    found = (unpacked(packed) - unpacked(zero)[:, :3, None]) * scale.reshape(40, 3, 1)
    error = np.square(inputs @ (found.reshape(40, 96).T - matrix)).mean()
    assert error < 0.9 * np.square(inputs @ (rounded_to_nearest(matrix) - matrix)).mean()


@pytest.mark.parametrize("channels", [64, 80])
def test_the_runtime_reads_the_four_bit_layout(channels: int) -> None:
    """Channels that fill no whole block included."""
    draw = np.random.default_rng(0)
    matrix = draw.integers(-7, 9, (channels, 24)).astype(np.float32) / 8
    packed, scale, zero = four_bits(matrix, np.ones(channels, np.float32))
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 24, "com.microsoft": 1]>
        g (float[rows, {channels}] x) => (float[rows, 24] y)
        {{ y = com.microsoft.MatMulNBits <K={channels}, N=24, bits=4, block_size={BLOCK}> (x, b, s, z) }}"""
    )
    node = next(iter(model.graph))
    for index, array in enumerate((packed, scale, zero), start=1):
        node.replace_input_with(index, Editor(model).constant(f"w{index}", array))
    x = draw.standard_normal((5, channels)).astype(np.float32)
    session = ort.InferenceSession(ir.serde.serialize_model(model).SerializeToString())
    assert np.abs(session.run(None, {"x": x})[0] - x @ matrix).max() < 0.05 * np.sqrt(channels)


def test_eight_bits_come_back() -> None:
    rows = np.random.default_rng(0).standard_normal((9, 64)).astype(np.float32)
    rows[2, :BLOCK] = 0
    values, scale = eight_bits(rows)
    back = (values.astype(np.float32).reshape(9, 2, BLOCK) - 128) * scale[..., None]
    assert np.abs(back.reshape(rows.shape) - rows).max() <= scale.max() * 0.5001
