"""The prefix cache: what is found, what is kept, and that a hit changes no bit of an answer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest

from basert.messages import Sampling, Tokens
from engines.prefix import Match, Prefixes, common, ids_of
from tests.engines.harness import PEER, SteppedEngine
from tests.engines.test_determinism import NEW, Answer, RecordingSampler, chat
from tests.tiny import write_testing_bundle

LOGITS = Sampling(temperature=0, logit_bias={0: 0.5})  # greedy, and its logits are fetched
STORY = "The ferry leaves the harbour at seven and comes back when the tide allows it. Snow had fallen. " * 8


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    return write_testing_bundle(folder, sentence="", max_context=2000, slots=4)


def words(start: int, count: int) -> list[int]:
    return [10 + (start * 37 + i * 7) % 250 for i in range(count)]


def cached(engine: SteppedEngine, number: int) -> int:
    first, *later = [reply.cached for reply in engine.replies[PEER, number] if isinstance(reply, Tokens)]
    assert not any(later)
    return first


def test_a_conversation_goes_on_where_its_last_prompt_ended(long: Path) -> None:
    engine = SteppedEngine(long)
    prompt = words(1, 500)
    first = engine.ask(prompt, 5, ignore_eos=True)
    engine.finish()
    again = [*prompt, *engine.tokens(first), *words(2, 30)]
    second = engine.ask(again, 5, ignore_eos=True)
    engine.finish()
    assert (cached(engine, first), cached(engine, second)) == (0, 500)
    assert engine.stats().cached_tokens == 500
    assert engine.tokens(second) == SteppedEngine(long, prefix_cache=False).answer(again, 5, ignore_eos=True)


def test_all_but_the_last_token_of_the_same_prompt_is_found(long: Path) -> None:
    for length in (64, 65, 97, 128, 300):
        engine = SteppedEngine(long)
        numbers = [engine.ask(words(length, length), 3, ignore_eos=True)]
        engine.finish()
        numbers.append(engine.ask(words(length, length), 3, ignore_eos=True))
        engine.finish()
        assert engine.tokens(numbers[0]) == engine.tokens(numbers[1])
        assert [cached(engine, number) for number in numbers] == [0, length - 1]


def test_prompts_that_come_together_compute_what_they_share_once(long: Path) -> None:
    engine = SteppedEngine(long)
    prompts = [words(1, 600) + words(20 + i, 10 + i) for i in range(4)]
    numbers = [engine.ask(prompt, 4, ignore_eos=True) for prompt in prompts]
    engine.finish()
    stats = engine.stats()
    computed = stats.computed_tokens - stats.padded_tokens - 4 * 3
    assert computed == sum(map(len, prompts)) - stats.cached_tokens
    assert stats.cached_tokens >= 3 * 600
    alone = SteppedEngine(long, prefix_cache=False)
    for number, prompt in zip(numbers, prompts, strict=True):
        assert engine.tokens(number) == alone.answer(prompt, 4, ignore_eos=True)


def test_several_answers_to_a_prompt_compute_it_once(long: Path) -> None:
    engine = SteppedEngine(long)
    prompt = words(3, 300)
    draws = [Sampling(temperature=1.5, seed=seed) for seed in range(4)]
    numbers = [engine.ask(prompt, 4, sampling, ignore_eos=True) for sampling in draws]
    engine.finish()
    stats = engine.stats()
    assert stats.computed_tokens - stats.padded_tokens == 300 + 3 + 4 * 3  # and the last token of each once
    assert [cached(engine, number) for number in numbers] == [0, 299, 299, 299]


def test_another_salt_finds_nothing(long: Path) -> None:
    engine = SteppedEngine(long)
    numbers = []
    for salt in ("", "a", "b", "a", ""):
        numbers.append(engine.ask(words(1, 300), 3, ignore_eos=True, cache_salt=salt))
        engine.finish()
    assert [cached(engine, number) for number in numbers] == [0, 0, 0, 299, 299]
    assert len({tuple(engine.tokens(number)) for number in numbers}) == 1
    together = [engine.ask(words(2, 300), 3, cache_salt=salt) for salt in ("c", "d")]
    engine.finish()
    assert [cached(engine, number) for number in together] == [0, 0]


def test_what_a_cancelled_prompt_had_computed_is_found(long: Path) -> None:
    engine = SteppedEngine(long)
    number = engine.ask(words(1, 600), 4)
    engine.step(3)
    engine.cancel(number)
    other = engine.ask(words(1, 600), 4, ignore_eos=True)
    engine.finish()
    assert cached(engine, other) == 3 * 64


def test_scoring_finds_nothing_and_leaves_something(long: Path) -> None:
    engine = SteppedEngine(long)
    numbers = []
    for scores in (0, 0, -1):
        numbers.append(engine.ask(words(1, 300), 2, ignore_eos=True, prompt_logprobs=scores))
        engine.finish()
    assert [cached(engine, number) for number in numbers] == [0, 0, 299]


def test_without_it_nothing_is_found(long: Path) -> None:
    engine = SteppedEngine(long, prefix_cache=False)
    for _ in range(2):
        engine.answer(words(1, 300), 2)
    stats = engine.stats()
    assert stats.cached_tokens == 0
    assert stats.computed_tokens - stats.padded_tokens == 2 * (300 + 1)


def test_the_least_recently_used_content_goes_first(long: Path) -> None:
    engine = SteppedEngine(long)
    for start in (1, 2, 3, 4, 1, 5):  # four slots: 2 makes room for 5
        engine.answer(words(start, 100), 2)
    numbers = []
    for start in (1, 3, 4, 5, 2):
        numbers.append(engine.ask(words(start, 100), 1))
        engine.finish()
    assert [cached(engine, number) for number in numbers] == [99, 99, 99, 99, 0]


def test_streams_beside_each_other_lose_no_content_while_there_is_room(long: Path) -> None:
    """A row is taken because it keeps the window small; what it held is not the oldest, and moves away."""
    engine = SteppedEngine(long, slots=5)
    engine.ask(words(1, 100), 500, ignore_eos=True)
    for start in (2, 3, 4):
        number = engine.ask(words(start, 100), 2, ignore_eos=True)
        while not engine.ending(number):
            engine.step()
        assert engine.scheduler._slots.window([o.slot for o in engine.scheduler._slots.owners if o])[1] == 1
    stats = engine.stats()
    assert stats.batch_size.counts[0] < stats.decode_steps  # type: ignore[union-attr]
    assert stats.computed_tokens < 5 * 128 + 2 * stats.decode_steps  # no window was larger than two rows
    for start in (2, 3, 4):
        number = engine.ask(words(start, 100), 1, ignore_eos=True)
        while not engine.ending(number):
            engine.step()
        assert cached(engine, number) == 99


@pytest.fixture
def torn(long: Path) -> SteppedEngine:
    """Eight rows. 0, 2 and 3 run; 1 is free and has lost its first token to their decode steps."""
    engine = SteppedEngine(long, slots=8)
    numbers = [engine.ask(words(start, 100), 300, ignore_eos=True) for start in range(4)]
    engine.step(16)
    engine.cancel(numbers[1])
    engine.step(3)
    assert engine.session.cache[1, 0] != words(1, 1)[0]
    return engine


def answer_to_the_torn(engine: SteppedEngine) -> tuple[int, list[int]]:
    number = engine.ask(words(1, 100), 5, ignore_eos=True)
    while not engine.ending(number):
        engine.step()
    return cached(engine, number), engine.tokens(number)


@pytest.fixture(scope="module")
def untorn(long: Path) -> tuple[int, list[int]]:
    return 99, SteppedEngine(long).answer(words(1, 100), 5, ignore_eos=True)


def test_running_rows_are_gathered_without_loss(long: Path) -> None:
    engine = SteppedEngine(long, slots=8)
    numbers = [engine.ask(words(start, 100), 300, ignore_eos=True) for start in range(3)]
    engine.step(12)
    engine.cancel(numbers[1])
    engine.step(2)
    assert engine.scheduler._slots.owners[1] is not None
    assert answer_to_the_torn(engine)[0] == 99


def test_a_lost_first_token_is_back_when_its_row_goes_on(
    torn: SteppedEngine, untorn: tuple[int, list[int]]
) -> None:
    assert answer_to_the_torn(torn) == untorn


def test_a_lost_first_token_is_there_in_a_copy(torn: SteppedEngine, untorn: tuple[int, list[int]]) -> None:
    for number in (1, 3, 4):
        torn.cancel(number)
    torn.ask(words(9, 100), 300, ignore_eos=True)
    torn.step(4)
    assert torn.scheduler._slots.owners[4] is not None  # and row 1 is not beside it
    assert answer_to_the_torn(torn) == untorn
    assert torn.scheduler._slots.prefixes.held[1] is None  # the copy has it


def test_a_lost_first_token_is_there_when_content_makes_room(
    torn: SteppedEngine, untorn: tuple[int, list[int]]
) -> None:
    torn.ask(words(9, 100), 300, ignore_eos=True)
    torn.step(4)
    owners = torn.scheduler._slots.owners
    assert [owner is not None for owner in owners] == [True] * 4 + [False] * 4
    assert answer_to_the_torn(torn) == untorn


def test_common_finds_the_first_difference() -> None:
    draw = random.Random(1)
    for _ in range(300):
        one = [draw.randrange(50_000) for _ in range(draw.randrange(700))]
        other = one[: draw.randrange(len(one) + 1)] + [50_001] * draw.randrange(3)
        same = list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
        assert common(ids_of(one), ids_of(other)) == common(ids_of(other), ids_of(one)) == len(same)


def test_the_longest_valid_prefix_wins() -> None:
    prefixes = Prefixes(4)
    ids = ids_of(words(1, 100))
    prefixes.begin(0, ids, 0)  # nothing of it computed
    prefixes.begin(1, ids_of(words(1, 60)), 60)
    prefixes.begin(2, ids_of(words(1, 80) + words(2, 40)), 90)
    assert prefixes.best(ids, 99) == Match(2, 80)
    assert prefixes.best(ids, 70) == Match(2, 70)
    assert prefixes.best(ids, 99, besides=2) == Match(1, 60)
    assert prefixes.own(2, ids_of([5])) == 30
    assert prefixes.own(1, ids_of([5])) == 0


def answers(bundle: Path, *, prefix_cache: bool) -> Iterator[tuple[int, Answer]]:
    """(cached tokens, answer) of prompts that share beginnings of many lengths, in turn and together."""
    engine = SteppedEngine(bundle, slots=8, max_context=1024, prefix_cache=prefix_cache)
    engine.engine._sampler = sampler = RecordingSampler()
    story = chat(bundle, STORY)
    numbers = []
    for cut in (150, 90, 128, 149, 33, 40):
        numbers.append(engine.ask(story[:cut], NEW, LOGITS, ignore_eos=True))
        engine.step(7)
    engine.finish()
    for cut in (150, 129, 100, 41, 34):
        numbers.append(engine.ask(story[:cut] + chat(bundle, "Hello!"), NEW, LOGITS, ignore_eos=True))
    numbers += [engine.ask(story[:140], NEW, LOGITS, ignore_eos=True) for _ in range(4)]
    engine.finish()
    for number in numbers:
        yield cached(engine, number), (engine.tokens(number), sampler.logits[number])


def test_w8a8_logits_are_bit_equal_with_and_without_hits(smollm2_w8a8: Path) -> None:
    found = 0
    pairs = zip(
        answers(smollm2_w8a8, prefix_cache=True), answers(smollm2_w8a8, prefix_cache=False), strict=True
    )
    for (tokens, (with_it, logits)), (none, (without, others)) in pairs:
        assert none == 0
        found += tokens > 0
        assert with_it == without
        for one, other in zip(logits, others, strict=True):
            assert np.array_equal(one, other)
    assert found >= 12


@pytest.mark.parametrize("variant", ["fp32", "int4"])
def test_tokens_are_equal_with_and_without_hits(variant: str, request: pytest.FixtureRequest) -> None:
    bundle = request.getfixturevalue(f"smollm2_{variant}")
    with_it = [answer[0] for _, answer in answers(bundle, prefix_cache=True)]
    assert with_it == [answer[0] for _, answer in answers(bundle, prefix_cache=False)]
