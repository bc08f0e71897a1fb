"""Constrained rows: what comes out fits the grammar, in batches, drafted or held; or is refused."""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from basert.errors import InvalidRequest
from basert.manifest import TOKENIZER, read_manifest
from basert.messages import Grammar, Sampling
from basert.schema.constraints import grammar_text, json_grammar
from engines import compiling
from engines.constraints import Ahead, Constraint, Next
from engines.grammars import Grammars
from tests.engines.harness import PEER, SteppedEngine

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


@pytest.mark.parametrize(
    "text",
    [
        "start: /x+/ start",
        "start: /x+/ /x+/",
        '%llguidance {"no_forcing": false}\nstart: /x+/ start',
        'root ::= "x" root',
        grammar_text(json_grammar({"type": "array", "items": {"$ref": "#"}, "minItems": 1})),
    ],
)
def test_a_forced_text_without_an_end_ends_at_max_tokens(engine: SteppedEngine, text: str) -> None:
    number = engine.ask([3, 4], 20, HOT, grammar=Grammar(text))
    engine.finish()
    assert engine.ending(number) in ("length", "stop")


def test_deep_grammars_do_not_end_the_engine(engine: SteppedEngine) -> None:
    """On a usual thread's stack both end the process."""
    rules = "\n".join(f'r{i}: r{i + 1} r{i + 1} | "a"' for i in range(3000))
    links = {f"a{i}": {"properties": {"x": {"$ref": f"#/$defs/a{i + 1}"}}} for i in range(2500)}
    chain = {"$ref": "#/$defs/a0", "$defs": {**links, "a2500": {"type": "integer"}}}
    texts = [f'start: r0\n{rules}\nr3000: "b"', grammar_text(json_grammar(chain))]
    numbers = [engine.ask([3, 4], 3, grammar=Grammar(text)) for text in texts]
    engine.finish()
    assert all(engine.ending(number) in ("invalid", "length", "stop") for number in numbers)


def test_a_panic_of_the_compiler_ends_its_request_only(
    engine: SteppedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Panic(BaseException):
        pass

    broken: Future[Constraint] = Future()
    broken.set_exception(Panic("at the disco"))
    other = engine.ask([9, 9], 5, HOT, ignore_eos=True)
    monkeypatch.setattr(Grammars, "constraint", lambda self, grammar: broken)
    number = engine.ask([3, 4], 9, grammar=WORDS)
    engine.finish()
    assert engine.failure(number).code == "invalid"
    assert len(engine.tokens(other)) == 5


def test_gbnf_and_lark_texts_are_both_taken(engine: SteppedEngine, bundle: Path) -> None:
    for text in ('root ::= "yes" | "no"', 'start: "yes" | "no"'):
        tokens = engine.answer([3, 4], 9, HOT, grammar=Grammar(text, "grammar"))
        assert text_of(bundle, tokens) in ("yes", "no")


def test_a_grammar_is_compiled_once(engine: SteppedEngine) -> None:
    for seed in range(3):
        engine.answer([3, 4], 9, Sampling(seed=seed), grammar=WORDS)
    stats = engine.stats()
    assert (stats.grammars_compiled, stats.grammars_reused) == (1, 2)


def test_a_grammar_that_gets_too_costly_ends_its_request_only(engine: SteppedEngine) -> None:
    other = engine.ask([9, 9], 60, HOT, ignore_eos=True)
    costly = Grammar(grammar_text({"lark_grammar": "start: /(a{1000}){1000}/"}), "guided_regex")
    number = engine.ask([3, 4], 100, HOT, grammar=costly)
    engine.finish()
    assert engine.ending(number) in ("invalid", "length")
    assert len(engine.tokens(other)) == 60


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


def test_a_compilation_that_takes_too_long_is_given_up(
    engine: SteppedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    never: Future[Constraint] = Future()
    monkeypatch.setattr(Grammars, "constraint", lambda self, grammar: never)
    now = [0.0]
    engine.engine._compiling._clock = lambda: now[0]
    number = engine.ask([3, 4], 9, grammar=WORDS)
    engine.step(3)
    assert not engine.replies[PEER, number]
    now[0] = compiling.LONGEST + 1
    engine.step()
    assert "simpler" in engine.failure(number).message
    assert not engine.engine.busy


def test_requests_that_wait_for_grammars_are_bounded_cancelled_and_left(
    engine: SteppedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Grammars, "constraint", lambda self, grammar: Future())
    numbers = [engine.ask([3], 9, grammar=WORDS) for _ in range(compiling.MOST_WAITING + 1)]
    assert engine.ending(numbers[-1]) == "queue_full"
    assert engine.stats().waiting == compiling.MOST_WAITING
    engine.cancel(numbers[0])
    assert engine.stats().waiting == compiling.MOST_WAITING - 1
    engine.engine.receive(PEER, None)
    assert not engine.engine.busy


def test_a_draining_engine_compiles_nothing(engine: SteppedEngine) -> None:
    engine.engine.drain()
    number = engine.ask([3, 4], 9, grammar=WORDS)
    assert engine.ending(number) == "draining"


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


def test_masks_are_awaited_briefly_and_then_refused(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    grammars = Grammars(bundle / TOKENIZER, manifest.vocab_size, frozenset(manifest.eos_token_ids))
    constraint = grammars.constraint(WORDS.text).result()
    first = constraint.next()
    assert first is not None
    gate, ahead = threading.Event(), Ahead(threads=1)
    ahead._pool.submit(gate.wait)  # its thread is busy
    constraint.accept(int(first.penalty.argmax()))
    ahead.look([constraint])
    assert constraint.next() is None
    assert constraint.forced(9) == []
    constraint._asked -= 60
    with pytest.raises(InvalidRequest, match="simpler"):
        constraint.next()
    gate.set()
    ahead._pool.shutdown(wait=True)
    assert constraint.next() is not None


def test_a_grammar_that_takes_long_does_not_keep_others_waiting(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    grammars = Grammars(bundle / TOKENIZER, manifest.vocab_size, frozenset(manifest.eos_token_ids))
    slow, quick = (grammars.constraint(WORDS.text).result() for _ in range(2))
    first = quick.next()
    assert first is not None
    for one in (slow, quick):
        one.accept(int(first.penalty.argmax()))
    gate = threading.Event()
    advance = slow.advance
    slow.advance = lambda: (gate.wait(), advance())  # type: ignore[method-assign, return-value, assignment]
    Ahead(threads=2).look([slow, quick])
    quick._answered.wait()  # type: ignore[union-attr]
    assert quick.next() is not None
    gate.set()
    slow._answered.wait()  # type: ignore[union-attr]
    assert slow.next() is not None
