"""A small random Llama with random adapters: requests get what transformers and peft answer, in any mix."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from basert.messages import AdapterDone, LoadAdapter, Sampling, UnloadAdapter
from export.lora.pipeline import AdapterRequest, run
from tests.adapters import ATTENTION, EVERYTHING, old_ways, write_random_adapter
from tests.engines.harness import PEER, SteppedEngine

NEW = 16
CONFIGS: dict[str, dict[str, Any]] = {
    "whole": {"r": 8, "target_modules": list(EVERYTHING)},
    "attention": {"r": 12, "target_modules": list(ATTENTION), "use_rslora": True},
    "small": {"r": 3, "target_modules": ["q_proj", "v_proj"], "lora_alpha": 5},
    "mixed": {
        "r": 4,
        "target_modules": ["k_proj", "down_proj", "up_proj"],
        "rank_pattern": {"up_proj": 17},
        "alpha_pattern": {"layers.1.mlp.down_proj": 20},
    },
}


class Reference:
    """transformers, with one of peft's adapters or none, without a cache."""

    def __init__(self, checkpoint: Path, folders: dict[str, Path]) -> None:
        base: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
        self.vocab_size: int = base.config.vocab_size
        first, *others = folders
        with old_ways():
            self._model: Any = PeftModel.from_pretrained(base, folders[first], adapter_name=first).eval()
            for name in others:
                self._model.load_adapter(folders[name], adapter_name=name)
        self._known: dict[tuple[str, int], list[int]] = {}

    def prompt(self, length: int) -> list[int]:
        ids: list[int] = np.random.default_rng(length).integers(3, self.vocab_size, length).tolist()
        return ids

    def greedy(self, adapter: str, length: int) -> list[int]:
        if (adapter, length) not in self._known:
            ids = self.prompt(length)
            for _ in range(NEW):
                ids.append(int(self._logits(adapter, ids).argmax()))
            self._known[adapter, length] = ids[length:]
        return self._known[adapter, length]

    def _logits(self, adapter: str, ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            if adapter:
                self._model.set_adapter(adapter)
                return self._model(torch.tensor([ids])).logits[0, -1]  # type: ignore[no-any-return]
            with self._model.disable_adapter():
                return self._model(torch.tensor([ids])).logits[0, -1]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def folders(tiny_llama: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    room = tmp_path_factory.mktemp("peft")
    return {
        name: write_random_adapter(tiny_llama[1], room / name, seed, **config)
        for seed, (name, config) in enumerate(CONFIGS.items())
    }


@pytest.fixture(scope="module")
def adapters(
    tiny_llama: tuple[Path, Path], folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Path]]:
    """Their bundles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BASERT_HOME", str(tmp_path_factory.mktemp("store")))
        base = str(tiny_llama[0])
        yield {name: run(AdapterRequest(str(folder), base))[0] for name, folder in folders.items()}


@pytest.fixture(scope="module")
def reference(tiny_llama: tuple[Path, Path], folders: dict[str, Path]) -> Reference:
    found = Reference(tiny_llama[1], folders)
    answers = {tuple(found.greedy(name, 30)) for name in ("", *CONFIGS)}
    assert len(answers) == 1 + len(CONFIGS)  # each changes what is said
    return found


@pytest.fixture
def bundle(tiny_llama: tuple[Path, Path]) -> Path:
    return tiny_llama[0]


def engine_of(bundle: Path, adapters: dict[str, Path], **config: Any) -> SteppedEngine:
    defaults = {"slots": 8, "threads": 1, "adapters": tuple(adapters.values())}
    return SteppedEngine(bundle, **defaults | config)


@pytest.mark.parametrize("seed", range(6))
def test_adapters_and_none_in_one_batch_over_random_schedules(
    bundle: Path, adapters: dict[str, Path], reference: Reference, seed: int
) -> None:
    draw = random.Random(seed)
    engine = engine_of(bundle, adapters, slots=draw.choice([2, 5, 8]), max_queue=100)
    asked: dict[int, tuple[str, int]] = {}
    for _ in range(20):
        name, length = draw.choice(["", "", *CONFIGS]), draw.choice([1, 2, 9, 30, 33, 70, 150])
        asked[engine.ask(reference.prompt(length), NEW, ignore_eos=True, adapter=name)] = name, length
        engine.step(draw.choice([0, 0, 1, 3, 9]))
    engine.finish()
    for number, (name, length) in asked.items():
        assert engine.tokens(number) == reference.greedy(name, length), (name, length)


def test_a_request_gets_the_same_bits_in_any_company(
    bundle: Path, adapters: dict[str, Path], reference: Reference
) -> None:
    """With an adapter or without; without, those of an engine that has never had an adapter."""
    for name in ("", "whole", "mixed"):
        alone = engine_of(bundle, adapters if name else {})
        ask = {"ignore_eos": True, "logprobs": 4, "adapter": name}
        expected = alone.ask(reference.prompt(40), NEW, **ask)
        alone.finish()
        engine = engine_of(bundle, adapters)
        for other, length in zip([*CONFIGS, "", "small"], (5, 20, 35, 50, 65, 80), strict=True):
            engine.ask(
                reference.prompt(length), 3 * NEW, Sampling(seed=length), ignore_eos=True, adapter=other
            )
        engine.step(9)
        number = engine.ask(reference.prompt(40), NEW, **ask)
        engine.finish()
        assert engine.tokens(number) == alone.tokens(expected)
        assert engine.logprobs(number) == alone.logprobs(expected)


def test_what_an_adapter_computed_is_nobody_elses_prefix(
    bundle: Path, adapters: dict[str, Path], reference: Reference
) -> None:
    engine = engine_of(bundle, adapters)
    cached = {}
    for turn in (1, 2):
        for name in ("", "whole", "small"):
            number = engine.ask(reference.prompt(150), NEW, ignore_eos=True, adapter=name)
            engine.finish()
            assert engine.tokens(number) == reference.greedy(name, 150)
            cached[turn, name] = sum(reply.cached for reply in engine._tokens(number, PEER))
    assert [cached[1, name] for name in ("", "whole", "small")] == [0, 0, 0]
    assert all(cached[2, name] >= 100 for name in ("", "whole", "small"))


def test_streams_go_on_while_an_adapter_is_loaded(
    bundle: Path, adapters: dict[str, Path], reference: Reference
) -> None:
    engine = engine_of(bundle, {})
    running = engine.ask(reference.prompt(30), NEW, ignore_eos=True)
    engine.step(3)
    load(engine, 7, adapters["whole"])
    early = engine.ask(reference.prompt(20), NEW, adapter="whole")
    assert engine.ending(early) == "no_adapter"
    assert "load it first" in engine.failure(early).message
    engine.finish()
    assert wait_for(engine, 7).adapter.name == "whole"  # type: ignore[union-attr]
    assert engine.tokens(running) == reference.greedy("", 30)
    assert engine.answer(reference.prompt(20), NEW, ignore_eos=True, adapter="whole") == reference.greedy(
        "whole", 20
    )


def test_unloading_waits_for_those_who_use_it(
    bundle: Path, adapters: dict[str, Path], reference: Reference
) -> None:
    engine = engine_of(bundle, adapters)
    numbers = [
        engine.ask(reference.prompt(20), NEW, ignore_eos=True, adapter=name) for name in ("small", "whole")
    ]
    engine.step(4)
    engine.engine.receive(PEER, UnloadAdapter(9, "small"))
    late = engine.ask(reference.prompt(20), NEW, adapter="small")
    assert engine.ending(late) == "no_adapter"
    engine.step(2)
    assert not engine.replies[PEER, 9]
    engine.finish()
    assert wait_for(engine, 9) == AdapterDone(9)
    for number, name in zip(numbers, ("small", "whole"), strict=True):
        assert engine.tokens(number) == reference.greedy(name, 20)
    engine.engine.receive(PEER, UnloadAdapter(10, "small"))
    assert "no adapter 'small' is loaded" in wait_for(engine, 10).error


def test_one_that_is_cancelled_lets_its_adapter_go(
    bundle: Path, adapters: dict[str, Path], reference: Reference
) -> None:
    engine = engine_of(bundle, adapters, slots=1)
    numbers = [engine.ask(reference.prompt(20), NEW, adapter="small") for _ in range(2)]  # one of them waits
    engine.step()
    engine.engine.receive(PEER, UnloadAdapter(9, "small"))
    for number in numbers:
        engine.cancel(number)
    engine.step()
    assert engine.replies[PEER, 9] == [AdapterDone(9)]


def test_a_place_is_used_again(bundle: Path, adapters: dict[str, Path], reference: Reference) -> None:
    engine = engine_of(bundle, {"whole": adapters["whole"]}, max_adapters=1)
    load(engine, 5, adapters["small"])
    assert "unload one, or start it with a larger --max-loras" in wait_for(engine, 5).error
    engine.engine.receive(PEER, UnloadAdapter(6, "whole"))
    assert not wait_for(engine, 6).error
    load(engine, 7, adapters["mixed"])
    assert not wait_for(engine, 7).error
    for length in (9, 70):
        asked = engine.answer(reference.prompt(length), NEW, ignore_eos=True, adapter="mixed")
        assert asked == reference.greedy("mixed", length)


def test_loading_it_twice_changes_nothing(bundle: Path, adapters: dict[str, Path]) -> None:
    engine = engine_of(bundle, {"whole": adapters["whole"]})
    load(engine, 5, adapters["whole"])
    assert wait_for(engine, 5).adapter.name == "whole"  # type: ignore[union-attr]
    assert [info.name for info in engine.engine.adapters] == ["whole"]


def test_factors_that_were_altered_are_refused(
    bundle: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    altered = tmp_path / "altered"
    altered.mkdir()
    for file in adapters["small"].iterdir():
        (altered / file.name).write_bytes(file.read_bytes())
    raw = bytearray((altered / "factors.npz").read_bytes())
    raw[len(raw) // 2] ^= 1
    (altered / "factors.npz").write_bytes(raw)
    engine = engine_of(bundle, {})
    load(engine, 5, altered)
    assert "was altered; export the adapter again" in wait_for(engine, 5).error
    load(engine, 6, adapters["small"])
    assert not wait_for(engine, 6).error


def load(engine: SteppedEngine, number: int, bundle: Path) -> None:
    engine.engine.receive(PEER, LoadAdapter(number, str(bundle)))


def wait_for(engine: SteppedEngine, number: int) -> AdapterDone:
    while not engine.replies[PEER, number]:
        engine.step()
    [done] = engine.replies[PEER, number]
    assert isinstance(done, AdapterDone)
    return done
