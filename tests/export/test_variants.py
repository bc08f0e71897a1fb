"""w8a8 and int4 of every proven family: close to the checkpoint, stored once, deaf to the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from export.calibration import CALIBRATION, calibrate_ids, read_calibration
from export.graph import GRAPH, decoder_from_checkpoint, read_decoder, save
from export.parity import measure_ids
from export.passes.editing import data_of
from export.passes.rotate import rotate
from export.passes.search import least_error
from export.passes.smooth import smooth
from export.runner import SlotRunner
from export.variants import ROTATED, build_rotated, build_variant
from tests.export.families import FAMILIES, VOCAB, write_family
from tests.export.stepping import prefill

NOT_ROTATED = {"gemma3"}  # it norms what a layer adds to the stream


def silent(done: int, total: int) -> None:
    pass


def sequences(count: int, length: int, seed: int) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [draw.integers(3, VOCAB, length).tolist() for _ in range(count)]


class Family:
    """One family's checkpoint, fp32 slot graph and calibration."""

    def __init__(self, family: str, folder: Path) -> None:
        self.name = family
        self.checkpoint = write_family(folder / "checkpoint", family)
        self.graph = folder / "fp32"
        decoder_from_checkpoint(self.checkpoint, self.graph)
        self.folder = folder
        self.calibration = self.calibrate(self.graph)

    def calibrate(self, graph: Path) -> Path:
        return calibrate_ids(sequences(6, 64, 1), graph, self.folder / "seen" / graph.name, silent, threads=1)

    def rotated(self) -> Path:
        out = self.folder / "rotated"
        if not out.exists():
            build_rotated(self.graph, out)
        return out

    def variant(self, name: str) -> Path:
        """As export.compiling makes it."""
        out = self.folder / name
        graph = self.rotated() if name in ROTATED else self.graph
        build_variant(name, graph, self.calibrate(graph), out, silent)
        return out


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(request.param, tmp_path_factory.mktemp(request.param))


def logits_of(graph: Path) -> np.ndarray:
    runner = SlotRunner(graph, slots=1, max_context=64, threads=1)
    return runner.chunk(0, sequences(1, 64, 2)[0], 0)


@pytest.mark.parametrize("variant", ["w8a8", "int4"])
def test_a_quantised_graph_stays_close_to_the_checkpoint(family: Family, variant: str) -> None:
    graph = family.variant(variant)
    numbers = measure_ids(family.checkpoint, graph, sequences(3, 80, 2), silent, threads=1)
    assert numbers.tokens == 3 * 79
    # Gaussian weights are the hardest to round; a wrong graph agrees in 1 of 384 and diverges by 4 and more.
    assert numbers.greedy_agreement > {"w8a8": 0.8, "int4": 0.25}[variant]
    assert numbers.kl_divergence < {"w8a8": 0.04, "int4": 0.9}[variant]


def test_smoothing_changes_weights_and_no_logits(family: Family, tmp_path: Path) -> None:
    model, decoder = ir.load(family.graph / GRAPH), read_decoder(family.graph)
    before = {name: value.const_value.numpy().copy() for name, value in model.graph.initializers.items()}
    seen = read_calibration(family.calibration)
    smooth(model, seen.squares, least_error(seen.rows))
    save(model, decoder, tmp_path)
    after = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    changed = {name for name, array in before.items() if not np.array_equal(array, after.get(name))}
    for part in ("input_layernorm", "self_attn.v_proj", "o_proj", "up_proj", "down_proj"):
        assert [name for name in changed if part in name], part  # where it lowers the error, that is
    assert np.abs(logits_of(tmp_path) - logits_of(family.graph)).max() < 1e-3


def test_a_w8a8_request_gets_the_same_bits_alone_and_in_a_batch(family: Family) -> None:
    graph = family.variant("w8a8")
    prompts = [ids[: 5 + 3 * slot] for slot, ids in enumerate(sequences(9, 40, 3))]
    lengths = [len(prompt) for prompt in prompts]
    together = SlotRunner(graph, slots=9, max_context=64, threads=2)
    first = [prefill(together, slot, prompt, 32) for slot, prompt in enumerate(prompts)]
    batch = together.decode([7] * 9, lengths)
    for slot in (0, 4, 8):
        alone = SlotRunner(graph, slots=1, max_context=64, threads=1)
        assert np.array_equal(prefill(alone, 0, prompts[slot], 32), first[slot])
        assert np.array_equal(alone.decode([7], lengths[slot : slot + 1])[0], batch[slot])


def sizes(graph: Path) -> list[int]:
    """Bytes of each tensor of the vocabulary's size."""
    values = ir.load(graph / GRAPH).graph.initializers.values()
    return [
        value.const_value.nbytes for value in values if VOCAB in list(value.shape) and len(value.shape) == 2
    ]


def test_tied_embeddings_are_stored_once(tmp_path: Path) -> None:
    tied = Family("llama3", tmp_path)
    assert sizes(tied.graph) == [VOCAB * 64 * 4]
    assert sizes(tied.variant("w8a8")) == [VOCAB * 64]
    assert sorted(sizes(tied.variant("int4"))) == [VOCAB * 64 // 32 * 4, VOCAB * 64]  # scales, weights


def test_gemmas_tied_embedding_which_the_exporter_copies_is_stored_once(tmp_path: Path) -> None:
    checkpoint = write_family(tmp_path / "checkpoint", "gemma3", tie_word_embeddings=True)
    decoder_from_checkpoint(checkpoint, tmp_path)
    assert sizes(tmp_path) == [VOCAB * 64 * 4]


def test_rotating_changes_weights_and_no_logits(family: Family) -> None:
    model = ir.load(family.graph / GRAPH)
    turned = rotate(model)
    assert turned == (family.name not in NOT_ROTATED)
    before = {
        name: data_of(value) for name, value in ir.load(family.graph / GRAPH).graph.initializers.items()
    }
    after = {name: data_of(value) for name, value in model.graph.initializers.items()}
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    for part in ("embed", "o_proj", "down_proj", "q_proj"):
        assert any(part in name for name in changed) == turned, part
    assert np.abs(logits_of(family.rotated()) - logits_of(family.graph)).max() < 1e-3


def test_calibration_adds_up_what_each_channel_sees(tmp_path: Path) -> None:
    checkpoint = write_family(tmp_path / "checkpoint", "llama3")
    decoder_from_checkpoint(checkpoint, tmp_path / "fp32")
    few, many = (
        read_calibration(calibrate_ids(windows, tmp_path / "fp32", tmp_path, silent, threads=1))
        for windows in (sequences(2, 20, 1), sequences(8, 20, 1))
    )
    assert (tmp_path / CALIBRATION).is_file()
    assert sorted(path.name for path in (tmp_path / "fp32").iterdir()) == [
        "decoder.json",
        "decoder.onnx",
        "decoder.onnx.data",
        "folds.npz",
    ]
    assert not few.grams  # 40 tokens say too little of 64 channels that move together
    for name, squares in many.squares.items():
        assert (squares > few.squares[name]).all()
        assert many.rows[name].shape == (8 * 3, squares.size)
        if name in many.grams:
            assert np.allclose(many.grams[name].diagonal(), squares, rtol=1e-4)
    wide = {name for name, squares in many.squares.items() if 2 * squares.size > 160}
    assert set(many.grams) == set(many.squares) - wide
    assert wide
    assert many.grams
