"""The gate: it measures what it says, and a broken graph does not pass it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
import pytest
import torch

from basert.errors import ExportError, ParityError
from basert.manifest import ParityNumbers
from export.graph import GRAPH, decoder_from_checkpoint, read_decoder, save
from export.parity import LIMITS, Comparison, check, measure, measure_ids
from export.passes.editing import data_of, set_array
from tests.export.families import VOCAB, write_family

GOOD = ParityNumbers(
    tokens=4000, max_logit_difference=1e-4, greedy_agreement=1.0, kl_divergence=0.0, perplexity_ratio=1.0
)


def silent(done: int, total: int) -> None:
    pass


def test_comparison_sums_up_what_numpy_says() -> None:
    draw = torch.Generator().manual_seed(0)
    reference = torch.randn(50, 20, generator=draw) * 3
    ours = reference + torch.randn(50, 20, generator=draw) / 2
    following = [int(i) for i in torch.randint(20, (50,), generator=draw)]
    comparison = Comparison()
    comparison.add(ours[:30], reference[:30], following[:30])
    comparison.add(ours[30:], reference[30:], following[30:])
    found = comparison.numbers()

    p, q = (np.exp(x - np.log(np.exp(x).sum(-1, keepdims=True))) for x in (reference.numpy(), ours.numpy()))
    rows = np.arange(50)
    assert found.tokens == 50
    assert found.max_logit_difference == pytest.approx(float((ours - reference).abs().max()))
    assert found.greedy_agreement == np.mean(p.argmax(-1) == q.argmax(-1))
    assert found.kl_divergence == pytest.approx((p * np.log(p / q)).sum(-1).mean(), rel=1e-4)
    assert found.perplexity_ratio == pytest.approx(
        np.exp(np.log(p[rows, following]).mean() - np.log(q[rows, following]).mean()), rel=1e-4
    )


@pytest.mark.parametrize("variant", LIMITS)
def test_good_numbers_pass(variant: str) -> None:
    check(variant, GOOD)


@pytest.mark.parametrize(
    ("variant", "numbers", "message"),
    [
        ("fp32", {"max_logit_difference": 0.02}, "largest logit difference is 0.02, the limit 0.001"),
        ("fp32", {"greedy_agreement": 0.9997}, "greedy agreement is 0.9997, the limit 1"),
        ("w8a8", {"greedy_agreement": 0.5}, "greedy agreement is 0.5"),
        ("w8a8", {"kl_divergence": 0.5}, "mean KL divergence is 0.5"),
        ("int4", {"perplexity_ratio": 2.0}, "perplexity ratio is 2"),
        ("int4", {"perplexity_ratio": 0.5}, "perplexity ratio is 2"),
        ("int4", {"kl_divergence": float("nan")}, "mean KL divergence is nan"),
    ],
)
def test_a_number_over_its_limit_is_named(variant: str, numbers: dict[str, float], message: str) -> None:
    fields = {name: getattr(GOOD, name) for name in GOOD.__struct_fields__}
    with pytest.raises(ParityError, match=f"The {variant} graph .* {message}"):
        check(variant, ParityNumbers(**{**fields, **numbers}))


def test_no_number_is_no_parity() -> None:
    ours = torch.zeros(2, 5)
    ours[0, 1] = torch.nan
    with pytest.raises(ParityError, match="no number"):
        Comparison().add(ours, torch.zeros(2, 5), [1, 2])


def test_numbers_far_apart_can_be_written_down() -> None:
    far = torch.tensor([[0.0, 2000.0]])
    for ours, reference in ((far, far.flip(-1)), (far.flip(-1), far)):
        comparison = Comparison()
        comparison.add(ours, reference, [0])
        found = comparison.numbers()
        assert msgspec.json.decode(msgspec.json.encode(found), type=ParityNumbers) == found
        with pytest.raises(ParityError):
            check("int4", found)


def spoil(folder: Path, out: Path, part: str, factor: float) -> Path:
    """The slot graph with the initializers whose name has `part` in it multiplied."""
    model = ir.load(folder / GRAPH)
    chosen = [value for name, value in model.graph.initializers.items() if part in name]
    assert chosen
    for value in chosen:
        set_array(value, data_of(value) * np.float32(factor))
    save(model, read_decoder(folder), out)
    return out


@pytest.mark.parametrize(
    ("part", "factor"), [("rope.full_attention.sin", 0.99), ("layers.1.mlp.up_proj", 1.001)]
)
def test_a_slightly_wrong_graph_fails_the_fp32_gate(part: str, factor: float, tmp_path: Path) -> None:
    checkpoint = write_family(tmp_path / "checkpoint", "llama3")
    decoder_from_checkpoint(checkpoint, tmp_path / "right")
    texts = [np.random.default_rng(seed).integers(3, VOCAB, 200).tolist() for seed in (1, 2)]
    progress: list[tuple[int, int]] = []
    right = measure_ids(checkpoint, tmp_path / "right", texts, lambda *seen: progress.append(seen), threads=1)
    check("fp32", right)
    assert progress[-1] == (right.tokens, right.tokens)
    wrong = measure_ids(
        checkpoint, spoil(tmp_path / "right", tmp_path / "wrong", part, factor), texts, silent
    )
    with pytest.raises(ParityError):
        check("fp32", wrong)


def test_the_shipped_text_passes_a_sliding_window(small_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = write_family(tmp_path / "checkpoint", "mistral", sliding_window=64)
    decoder_from_checkpoint(checkpoint, tmp_path / "graph")
    (checkpoint / "tokenizer.json").write_bytes((small_checkpoint / "tokenizer.json").read_bytes())
    numbers = measure(checkpoint, tmp_path / "graph", silent, threads=1)
    assert numbers.tokens > 3000
    check("fp32", numbers)


def test_a_checkpoint_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    checkpoint = write_family(tmp_path / "checkpoint", "llama3")
    decoder_from_checkpoint(checkpoint, tmp_path / "graph")
    with pytest.raises(ExportError, match=r"has no tokenizer\.json"):
        measure(checkpoint, tmp_path / "graph", silent)
