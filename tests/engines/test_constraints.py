"""Constrained rows: what comes out fits the grammar, in batches, drafted or held; or is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from basert.manifest import TOKENIZER, read_manifest
from basert.messages import Grammar, Sampling
from basert.schema.constraints import grammar_text, json_grammar
from engines.constraints import Constraint, Next
from tests.engines.harness import SteppedEngine

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
JSON = Grammar(grammar_text(json_grammar(SCHEMA)))
WORDS = Grammar(grammar_text({"lark_grammar": 'start: "yes" | "no" | "may" "be"{1,3}'}))
HOT = Sampling(temperature=1.5, seed=11)


def text_of(bundle: Path, tokens: list[int]) -> str:
    """The answer's text; its last token is the end."""
    assert tokens[-1] in read_manifest(bundle).eos_token_ids
    tokenizer = Tokenizer.from_file(str(bundle / TOKENIZER))
    return str(tokenizer.decode(tokens[:-1], skip_special_tokens=False))


def check_person(text: str) -> None:
    person = json.loads(text)
    assert list(person) == ["name", "age", "tags"]
    assert len(person["name"]) <= 6
    assert 0 <= person["age"] <= 120
    assert len(person["tags"]) <= 2
    assert set(person["tags"]) <= {"a", "b"}


@pytest.fixture
def engine(bundle: Path) -> SteppedEngine:
    return SteppedEngine(bundle)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 2.0])
def test_any_temperature_gives_what_the_schema_says(
    engine: SteppedEngine, bundle: Path, temperature: float
) -> None:
    for seed in range(6):
        sampling = Sampling(temperature=temperature, seed=seed)
        check_person(text_of(bundle, engine.answer([5, 6, seed + 1], 200, sampling, grammar=JSON)))


def test_rows_with_grammars_and_without_share_steps_and_do_not_touch_each_other(
    engine: SteppedEngine, bundle: Path
) -> None:
    alone = [
        engine.answer([7, 8, 9], 40, HOT, ignore_eos=True),
        engine.answer([4, 5], 200, HOT, grammar=JSON),
        engine.answer([4, 5, 6], 9, HOT, grammar=WORDS),
    ]
    together = SteppedEngine(bundle)
    numbers = [
        together.ask([7, 8, 9], 40, HOT, ignore_eos=True),
        together.ask([4, 5], 200, HOT, grammar=JSON),
        together.ask([4, 5, 6], 9, HOT, grammar=WORDS),
    ]
    together.finish()
    assert [together.tokens(number) for number in numbers] == alone
    assert together.stats().constrained_tokens == len(alone[1]) + len(alone[2])


@given(st.integers(0, 2**32), st.sampled_from([0.0, 1.0, 3.0]), st.booleans())
@settings(max_examples=30, deadline=None)
def test_drafts_change_no_constrained_answer(
    bundle: Path, seed: int, temperature: float, barred: bool
) -> None:
    sampling = Sampling(temperature=temperature, seed=seed)
    more = {"grammar": JSON, "min_tokens": 150 if barred else 0, "ignore_eos": barred}
    drafting, plain = SteppedEngine(bundle), SteppedEngine(bundle, speculation=False)
    drafted = drafting.answer([seed % 90 + 1, 3], 200, sampling, **more)
    assert drafted == plain.answer([seed % 90 + 1, 3], 200, sampling, **more)
    check_person(text_of(bundle, drafted))


def test_what_a_grammar_forces_is_drafted(engine: SteppedEngine, bundle: Path) -> None:
    lines = Grammar(grammar_text({"lark_grammar": 'start: "it is written in the book of hours"'}))
    tokens = engine.answer([3, 4], 100, HOT, grammar=lines)
    assert text_of(bundle, tokens) == "it is written in the book of hours"
    stats = engine.stats()
    assert stats.accepted_tokens > 0
    assert stats.decode_steps < len(tokens)


def test_an_answer_without_room_is_cut_not_bent(engine: SteppedEngine) -> None:
    number = engine.ask([3, 4], 3, HOT, grammar=JSON)
    engine.finish()
    assert engine.ending(number) == "length"
    assert len(engine.tokens(number)) == 3


@pytest.mark.parametrize(
    "text",
    [
        grammar_text(json_grammar({"type": "object", "dependentSchemas": {"a": {}}})),
        grammar_text(json_grammar({"type": "string", "pattern": "(?=a)b"})),
        grammar_text({"lark_grammar": "start: nowhere"}),
        grammar_text({"lark_grammar": "start: /(/"}),
        "nonsense ::= (",
        '{"grammars": 3}',
        "{",
    ],
)
def test_what_cannot_be_guaranteed_is_refused_with_the_field(engine: SteppedEngine, text: str) -> None:
    number = engine.ask([3, 4], 9, grammar=Grammar(text, "guided_json"))
    engine.finish()
    failure = engine.failure(number)
    assert (failure.code, failure.param) == ("invalid", "guided_json")
    assert failure.message.count("\n") == 0
    assert engine.stats().slots_used == 0


def test_gbnf_and_lark_texts_are_both_taken(engine: SteppedEngine, bundle: Path) -> None:
    for text in ('root ::= "yes" | "no"', grammar_text({"lark_grammar": 'start: "yes" | "no"'})):
        tokens = engine.answer([3, 4], 9, HOT, grammar=Grammar(text, "grammar"))
        assert text_of(bundle, tokens) in ("yes", "no")


def test_a_grammar_is_compiled_once(engine: SteppedEngine) -> None:
    for seed in range(3):
        engine.answer([3, 4], 9, Sampling(seed=seed), grammar=WORDS)
    stats = engine.stats()
    assert (stats.grammars_compiled, stats.grammars_reused) == (1, 2)


def test_a_row_whose_mask_is_late_is_run_again_and_says_the_same(
    engine: SteppedEngine, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = engine.answer([3, 4], 200, HOT, grammar=JSON)
    late = SteppedEngine(bundle)
    calls = iter(range(10**9))
    prompt = Constraint.next

    def sometimes(constraint: Constraint) -> Next | None:
        return None if next(calls) % 3 else prompt(constraint)

    monkeypatch.setattr(Constraint, "next", sometimes)
    other = late.ask([9, 9], 30, HOT, ignore_eos=True)
    number = late.ask([3, 4], 200, HOT, grammar=JSON)
    late.finish()
    assert late.tokens(number) == expected
    assert len(late.tokens(other)) == 30
    assert late.stats().held_tokens > 0


def test_a_grammar_has_the_last_word_over_allowed_tokens(engine: SteppedEngine, bundle: Path) -> None:
    other = engine.ask([9, 9], 20, HOT, ignore_eos=True)
    number = engine.ask([3, 4], 9, HOT, grammar=WORDS, allowed_ids=[5, 6], min_tokens=9)
    engine.finish()
    assert text_of(bundle, engine.tokens(number)).startswith(("yes", "no", "may"))
    assert len(engine.tokens(other)) == 20


def test_log_probabilities_are_the_models_own(engine: SteppedEngine) -> None:
    number = engine.ask([3, 4], 9, Sampling(temperature=0), grammar=WORDS, logprobs=3)
    engine.finish()
    assert len(engine.logprobs(number)) == len(engine.tokens(number))
    assert any(entry.id not in [token for token, _ in entry.top] for entry in engine.logprobs(number))
