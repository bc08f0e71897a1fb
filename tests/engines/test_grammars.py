"""Grammars that mean harm, or fail: they end their own requests, in time, and nothing else."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from basert.errors import InvalidRequest
from basert.manifest import TOKENIZER, read_manifest
from basert.messages import Grammar, Sampling
from basert.schema.constraints import grammar_text, json_grammar
from engines import compiling, grammars
from engines.constraints import Ahead, Constraint
from engines.grammars import Grammars
from tests.engines.harness import PEER, SteppedEngine

HOT = Sampling(temperature=1.5, seed=11)


def lark(text: str) -> str:
    return grammar_text({"lark_grammar": text})


WORDS = Grammar(lark('start: "yes" | "no" | "may" "be"{1,3}'))


@pytest.fixture
def engine(bundle: Path) -> SteppedEngine:
    return SteppedEngine(bundle)


@pytest.fixture
def compiler(bundle: Path) -> Grammars:
    manifest = read_manifest(bundle)
    return Grammars(bundle / TOKENIZER, manifest.vocab_size, frozenset(manifest.eos_token_ids))


def begin(constraint: Constraint) -> None:
    """Accept one of what may come first."""
    first = constraint.next()
    assert first is not None
    constraint.accept(int(first.penalty.argmax()))


class Gate:
    """Holds up a constraint's search for what may come next."""

    def __init__(self, constraint: Constraint) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        find = constraint._find

        def held(search: object) -> None:
            self.reached.set()
            self.open.wait()
            find(search)  # type: ignore[arg-type]

        constraint._find = held  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize(
    "text",
    [
        lark("start: /x+/ start"),
        lark("start: /x+/ /x+/"),
        lark('%llguidance {"no_forcing": false}\nstart: /x+/ start'),
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
    texts = [lark(f'start: r0\n{rules}\nr3000: "b"'), grammar_text(json_grammar(chain))]
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


def test_a_grammar_that_gets_too_costly_ends_its_request_only(engine: SteppedEngine) -> None:
    other = engine.ask([9, 9], 60, HOT, ignore_eos=True)
    costly = Grammar(lark("start: /(a{1000}){1000}/"), "guided_regex")
    number = engine.ask([3, 4], 100, HOT, grammar=costly)
    engine.finish()
    assert engine.ending(number) in ("invalid", "length")
    assert len(engine.tokens(other)) == 60


def test_a_compilation_that_takes_too_long_is_given_up(
    engine: SteppedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    never: Future[Constraint] = Future()
    never.set_running_or_notify_cancel()
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


def test_a_grammar_that_nobody_came_to_is_not_blamed(
    engine: SteppedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Grammars, "constraint", lambda self, grammar: Future())
    now = [0.0]
    engine.engine._compiling._clock = lambda: now[0]
    number = engine.ask([3, 4], 9, grammar=WORDS)
    now[0] = compiling.LONGEST + 1
    engine.step()
    assert engine.failure(number).code == "queue_full"


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


def test_a_mask_that_takes_long_is_awaited_briefly_and_then_refused(compiler: Grammars) -> None:
    constraint = compiler.constraint(WORDS.text).result()
    begin(constraint)
    gate = Gate(constraint)
    Ahead().look([constraint])
    gate.reached.wait()
    assert constraint.next() is None
    assert constraint.forced(9) == []
    search = constraint._search
    assert search is not None
    search.begun -= 60
    with pytest.raises(InvalidRequest, match="simpler"):
        constraint.next()
    gate.open.set()
    search.done.wait()
    assert constraint.next() is not None


def test_grammars_that_take_long_do_not_keep_others_waiting(compiler: Grammars) -> None:
    slow, slower, quick = (compiler.constraint(WORDS.text).result() for _ in range(3))
    for one in (slow, slower, quick):
        begin(one)
    gates = [Gate(slow), Gate(slower)]
    Ahead(threads=2).look([slow, slower, quick])
    for gate in gates:
        gate.reached.wait()
    assert quick.next() is not None  # both threads are busy: it is looked for here
    assert slow.next() is None
    for gate in gates:
        gate.open.set()


def test_grammars_are_kept_and_dropped_by_several_threads_at_once(
    compiler: Grammars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammars, "KEPT", 2)
    texts = [lark(f'start: "{n}"') for n in range(5)] * 40
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: compiler.constraint(text).result(), texts))
    assert all(one.next() is not None for one in found)
    assert len(compiler._kept) <= 2
