"""A small random Llama in fp32: the engine's greedy tokens are transformers', however they come about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from basert.messages import Sampling
from engines.batch import Batch, Chunks
from engines.golden import logits_after
from engines.runner import Output
from tests.engines.harness import SteppedEngine

LENGTHS = [1, 2, 7, 8, 9, 20, 31, 33, 40, 64, 100, 127, 129, 150, 200]
NEW = 24


class Reference:
    """The checkpoint in transformers, without a cache."""

    def __init__(self, folder: Path) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.max_context: int = self._model.config.max_position_embeddings
        self.vocab_size: int = self._model.config.vocab_size

    def logits(self, ids: list[int]) -> NDArray[np.float32]:
        """float32 [len(ids), vocab]"""
        with torch.no_grad():
            out: NDArray[np.float32] = self._model(torch.tensor([ids])).logits[0].numpy()
        return out

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        ids = list(prompt)
        while len(ids) < min(len(prompt) + count, self.max_context):
            ids.append(int(self.logits(ids)[-1].argmax()))
        return ids[len(prompt) :]

    def prompt(self, length: int) -> list[int]:
        ids: list[int] = np.random.default_rng(length).integers(3, self.vocab_size, length).tolist()
        return ids


@pytest.fixture(scope="module")
def bundle(tiny_llama: tuple[Path, Path]) -> Path:
    return tiny_llama[0]


@pytest.fixture(scope="module")
def reference(tiny_llama: tuple[Path, Path]) -> Reference:
    return Reference(tiny_llama[1])


@pytest.fixture(scope="module")
def answers(reference: Reference) -> dict[int, list[int]]:
    """Prompt length -> the reference's tokens. They vary, so that a wrong cache would show."""
    found = {length: reference.greedy(reference.prompt(length), NEW) for length in LENGTHS}
    assert all(len(set(tokens)) > 5 for tokens in found.values())
    return found


def engine_of(bundle: Path, **config: Any) -> SteppedEngine:
    return SteppedEngine(bundle, **{"slots": 16, "threads": 1} | config)


def test_prompts_of_all_lengths_one_at_a_time(
    bundle: Path, reference: Reference, answers: dict[int, list[int]]
) -> None:
    engine = engine_of(bundle)
    for length, answer in answers.items():
        assert engine.answer(reference.prompt(length), NEW, ignore_eos=True) == answer


def test_prompts_of_all_lengths_in_one_batch(
    bundle: Path, reference: Reference, answers: dict[int, list[int]]
) -> None:
    engine = engine_of(bundle)
    numbers = {length: engine.ask(reference.prompt(length), NEW, ignore_eos=True) for length in LENGTHS}
    engine.finish()
    assert {length: engine.tokens(number) for length, number in numbers.items()} == answers
    assert engine.stats().batch_size.counts[-1] < 2 * NEW + len(LENGTHS)  # type: ignore[union-attr]


def test_rows_that_join_and_leave_at_any_step(
    bundle: Path, reference: Reference, answers: dict[int, list[int]]
) -> None:
    """Few slots, staggered arrivals, some cancelled: holes, idle rows, chunks between decode steps."""
    engine = engine_of(bundle, slots=5, max_queue=50)
    numbers: dict[int, int] = {}
    for turn, length in enumerate(LENGTHS):
        numbers[length] = engine.ask(reference.prompt(length), NEW, ignore_eos=True)
        disturbing = engine.ask(reference.prompt(50 + turn), 40, ignore_eos=True)
        engine.step(3 + turn % 4)
        if turn % 2:
            engine.cancel(disturbing)
    engine.finish()
    assert {length: engine.tokens(number) for length, number in numbers.items()} == answers


def test_short_prompts_share_a_first_prefill(
    bundle: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(bundle)
    shapes: list[tuple[int, int]] = []
    run = engine.engine._runner.run

    def recorded(batch: Batch) -> Output:
        shapes.append((len(batch.rows), batch.chunk))
        return run(batch)

    monkeypatch.setattr(engine.engine._runner, "run", recorded)
    lengths = [25, 32, 29, 27]
    numbers = [engine.ask(reference.prompt(length), 4, ignore_eos=True) for length in lengths]
    engine.finish()
    assert shapes[0] == (4, 32)
    assert [engine.tokens(number) for number in numbers] == [
        reference.greedy(reference.prompt(length), 4) for length in lengths
    ]


def test_moved_rows_go_on_as_if_nothing_had_happened(
    bundle: Path, reference: Reference, answers: dict[int, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(bundle)
    moves: list[tuple[int, int, int]] = []
    move = engine.session.move

    def recorded(*how: int) -> None:
        moves.append(how)  # type: ignore[arg-type]
        move(*how)

    monkeypatch.setattr(engine.session, "move", recorded)
    numbers = {length: engine.ask(reference.prompt(length), NEW, ignore_eos=True) for length in LENGTHS}
    while engine.stats().decode_steps < 6:
        engine.step()
    kept = [LENGTHS[0], LENGTHS[7], LENGTHS[14]]
    for length in LENGTHS:
        if length not in kept:
            engine.cancel(numbers[length])
    engine.finish()
    assert moves
    rows = {0, 7, 14} - {source for source, _, _ in moves} | {target for _, target, _ in moves}
    assert max(rows) - min(rows) < 4
    assert [engine.tokens(numbers[length]) for length in kept] == [answers[length] for length in kept]


@pytest.mark.parametrize("short_of_the_end", [1, 2, 5, 9, 40])
def test_up_to_the_context_s_end(bundle: Path, reference: Reference, short_of_the_end: int) -> None:
    engine = engine_of(bundle, slots=2)
    prompt = reference.prompt(reference.max_context - short_of_the_end)
    beside = engine.ask(reference.prompt(3), 50, ignore_eos=True)
    engine.step(2)
    number = engine.ask(prompt, 10_000, ignore_eos=True)
    engine.finish()
    assert engine.tokens(number) == reference.greedy(prompt, short_of_the_end)
    assert engine.ending(number) == "length"
    assert engine.tokens(beside) == reference.greedy(reference.prompt(3), 50)


def test_a_smaller_context_than_the_bundle_s(bundle: Path, reference: Reference) -> None:
    engine = engine_of(bundle, max_context=37)
    prompt = reference.prompt(30)
    assert engine.answer(prompt, 100, ignore_eos=True) == reference.greedy(prompt, 7)


@pytest.mark.parametrize("buckets", [[8], [5, 16], [32, 128], [512]])
def test_logits_do_not_depend_on_how_a_prompt_is_cut(
    bundle: Path, reference: Reference, buckets: list[int]
) -> None:
    engine = engine_of(bundle)
    for length in (1, 2, 9, 63, 150, 256):
        prompt = reference.prompt(length)
        chunks = Chunks(buckets, 128, reference.max_context)
        found = logits_after(prompt, engine.engine._runner, chunks, slot=3)
        assert found == pytest.approx(reference.logits(prompt)[-1], abs=1e-4)


def test_logprobs_and_prompt_logprobs(bundle: Path, reference: Reference) -> None:
    engine = engine_of(bundle)
    numbers = {
        length: engine.ask(reference.prompt(length), 5, ignore_eos=True, logprobs=3, prompt_logprobs=2)
        for length in (2, 9, 33, 150)
    }
    engine.ask(reference.prompt(60), 30, Sampling(seed=3), ignore_eos=True)
    engine.finish()
    for length, number in numbers.items():
        ids = reference.prompt(length) + engine.tokens(number)
        exact = torch.log_softmax(torch.from_numpy(reference.logits(ids)).double(), -1).numpy()
        entries = engine.prompt_logprobs(number) + engine.logprobs(number)
        assert [entry.id for entry in entries] == ids[1:]
        for position, entry in enumerate(entries):
            assert entry.logprob == pytest.approx(exact[position, ids[position + 1]], abs=1e-3)
            best = np.sort(exact[position])[::-1][: len(entry.top)]
            assert [value for _, value in entry.top] == pytest.approx(best.tolist(), abs=1e-3)
        assert [len(entry.top) for entry in entries] == [2] * (length - 1) + [3] * 5


def test_a_seed_gives_the_same_tokens_alone_and_among_fifteen(bundle: Path, reference: Reference) -> None:
    sampling = Sampling(temperature=1.5, top_p=0.98, top_k=200, seed=42, repetition_penalty=1.1)
    prompt = reference.prompt(45)
    alone = engine_of(bundle).answer(prompt, NEW, sampling, ignore_eos=True)
    engine = engine_of(bundle)
    for i in range(15):
        engine.ask(reference.prompt(3 * i + 1), NEW, Sampling(seed=i), ignore_eos=True)
        if i == 7:
            engine.step(4)
            number = engine.ask(prompt, NEW, sampling, ignore_eos=True)
    engine.finish()
    assert engine.tokens(number) == alone
    assert len(set(alone)) > 5
