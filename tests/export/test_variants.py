"""w8a8 and int4 of every proven family: close to the checkpoint, stored once, deaf to the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from basert.errors import ExportError
from engines.sessions.instructions import integer_products
from export.calibration import CALIBRATION, calibrate_ids, read_calibration
from export.graph import GRAPH, decoder_from_checkpoint, read_decoder, save
from export.parity import measure_ids
from export.passes.smooth import for_rounded_activations, smooth
from export.runner import SlotRunner
from export.variants import VARIANTS, build_variant, choose_variant
from tests.export.families import FAMILIES, VOCAB, write_family
from tests.export.stepping import prefill


def silent(done: int, total: int) -> None:
    pass


def sequences(count: int, length: int, seed: int) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [draw.integers(3, VOCAB, length).tolist() for _ in range(count)]


class Family:
    """One family's checkpoint, fp32 slot graph and calibration."""

    def __init__(self, family: str, folder: Path) -> None:
        self.checkpoint = write_family(folder / "checkpoint", family)
        self.graph = folder / "fp32"
        decoder_from_checkpoint(self.checkpoint, self.graph)
        self.calibration = calibrate_ids(sequences(6, 64, 1), self.graph, folder, silent, threads=1)
        self.folder = folder

    def variant(self, name: str) -> Path:
        out = self.folder / name
        build_variant(name, self.graph, self.calibration, out, silent)
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
    smooth(model, read_calibration(family.calibration).maxima, for_rounded_activations)
    save(model, decoder, tmp_path)
    after = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    changed = {name for name, array in before.items() if not np.array_equal(array, after.get(name))}
    for part in ("input_layernorm", "self_attn.v_proj", "o_proj", "up_proj", "down_proj"):
        layers = {name.split("layers.")[1].split(".")[0] for name in changed if part in name}
        assert layers == {"0", "1", "2"}, part
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


def test_calibration_sees_the_largest_input_of_each_channel(tmp_path: Path) -> None:
    checkpoint = write_family(tmp_path / "checkpoint", "llama3")
    decoder_from_checkpoint(checkpoint, tmp_path / "fp32")
    seen = [
        read_calibration(calibrate_ids(windows, tmp_path / "fp32", tmp_path, silent, threads=1))
        for windows in (sequences(2, 20, 1), sequences(4, 20, 1))
    ]
    assert (tmp_path / CALIBRATION).is_file()
    assert sorted(path.name for path in (tmp_path / "fp32").iterdir()) == [
        "decoder.json",
        "decoder.onnx",
        "decoder.onnx.data",
    ]
    for name, largest in seen[1].maxima.items():
        assert (largest >= seen[0].maxima[name]).all()
        assert (seen[1].squares[name] > seen[0].squares[name]).all()


def test_auto_says_why(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags : fpu sse4_2 avx2 avx512_vnni\n")
    assert integer_products(cpuinfo) == "AVX-512 VNNI"
    cpuinfo.write_text("processor : 0\nflags : fpu sse4_2\n")
    assert integer_products(cpuinfo) is None
    variant, reason = choose_variant("auto")
    assert variant in VARIANTS
    assert reason.startswith("auto: ")
    assert choose_variant("int4") == ("int4", "asked for")
    with pytest.raises(ExportError, match="no variant 'int3'; choose auto, fp32, w8a8, int4"):
        choose_variant("int3")
