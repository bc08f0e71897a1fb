"""Which replica a request goes to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from basert.http.routing import BLOCK, MARGIN, Router, beginnings, weight
from basert.messages import Encode, Sound, Submit

PROMPTS = st.lists(st.integers(0, 3), max_size=5 * BLOCK)


def _submit(prompt: list[int], salt: str = "") -> Submit:
    return Submit(0, prompt, 1, cache_salt=salt)


@given(PROMPTS, PROMPTS)
def test_beginnings_agree_as_far_as_whole_blocks_do(one: list[int], other: list[int]) -> None:
    common = sum(1 for _ in _while_equal(one, other)) // BLOCK
    mine, others = beginnings(_submit(one)), beginnings(_submit(other))
    assert (len(mine), len(others)) == (len(one) // BLOCK, len(other) // BLOCK)
    assert mine[:common] == others[:common]
    assert not set(mine[common:]) & set(others[common:])


def _while_equal(one: list[int], other: list[int]) -> list[int]:
    end = next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    return one[:end]


def test_salted_prompts_adapters_and_sounds_are_told_apart() -> None:
    prompt = [1] * BLOCK
    adapted = [beginnings(Submit(0, prompt, 1, adapter=name)) for name in ("", "parrot", "raven")]
    assert len({*map(tuple, adapted), tuple(beginnings(_submit(prompt, "parrot")))}) == 4
    assert beginnings(_submit(prompt)) != beginnings(_submit(prompt, "salt"))
    sounds = [Submit(0, [1], 1, sound=Sound(bytes([n]) * 5000)) for n in (1, 1, 2)]
    one, same, other = map(beginnings, sounds)
    assert one == same != other
    assert beginnings(Encode(0, [prompt])) == []
    assert (weight(_submit(prompt)), weight(Encode(0, [prompt] * 9))) == (1, 9)


@given(st.dictionaries(st.integers(1, 9), st.integers(0, 20), min_size=1), st.lists(st.integers(0, 5)))
def test_without_history_the_least_loaded_comes_first_and_nobody_is_left_out(
    loads: dict[int, int], begun: list[int]
) -> None:
    order = Router().order(begun, loads)
    assert sorted(order) == sorted(loads)
    assert [loads[replica] for replica in order] == sorted(loads.values())


@given(
    st.dictionaries(st.integers(1, 4), st.integers(0, 9), min_size=2),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_the_one_that_had_the_longest_beginning_comes_first_unless_it_is_busier(
    loads: dict[int, int], known: int, workers: int
) -> None:
    router = Router(workers)
    router.given([1, 2, 3], known)
    router.given([1], 99)  # which is no replica any more
    first = router.order([1, 2, 7], loads)[0]
    near = known in loads and loads[known] <= min(loads.values()) + MARGIN // workers
    assert first == known if near else loads[first] == min(loads.values())


def test_equal_beginnings_meet_in_workers_that_know_nothing() -> None:
    loads = {1: 0, 2: 0, 3: 0}
    for mark in range(20):
        assert len({Router().order([mark, n], loads)[0] for n in range(5)}) == 1
    assert len({Router().order([mark], loads)[0] for mark in range(50)}) == 3  # and others are spread
    assert len({Router().order([], loads)[0] for _ in range(100)}) == 3
