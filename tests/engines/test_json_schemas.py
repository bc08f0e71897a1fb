"""The JSON Schema Test Suite: what comes out validates, or the schema is refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tokenizers import Tokenizer

from basert.manifest import TOKENIZER
from basert.messages import Failed, Grammar, Sampling
from basert.schema.constraints import grammar_text, json_grammar
from tests.engines.harness import PEER, SteppedEngine
from tests.packages import unpacked
from tests.tiny import write_testing_bundle

SEEDS = 3
MAX_TOKENS = 400
ENDS = ['"', "}", "]", ",", "0", "a"]  # random strings and numbers would hardly ever end


def suite() -> Iterator[tuple[str, Any]]:
    folder = unpacked("jsonschema==4.26.0") / "draft2020-12"
    for path in sorted(folder.rglob("*.json")):
        if path.stem not in ("refRemote", "vocabulary"):  # they need other documents
            for number, group in enumerate(json.loads(path.read_text())):
                yield f"{path.stem}-{number}", group["schema"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> SteppedEngine:
    folder = tmp_path_factory.mktemp("schemas")
    bundle = write_testing_bundle(folder, sentence="", max_context=512, slots=8, peak=3.0)
    engine = SteppedEngine(bundle)
    engine.tokenizer = Tokenizer.from_file(str(bundle / TOKENIZER))  # type: ignore[attr-defined]
    return engine


def outcomes(engine: SteppedEngine, schema: Any) -> list[str | Failed]:
    """The texts of answers that came to their end, or why there is none."""
    tokenizer: Tokenizer = engine.tokenizer  # type: ignore[attr-defined]
    bias = {token: 4.0 for end in ENDS for token in tokenizer.encode(end).ids}
    grammar = Grammar(grammar_text(json_grammar(schema)))
    numbers = [
        engine.ask([7, seed + 1], MAX_TOKENS, Sampling(seed=seed, logit_bias=bias), grammar=grammar)
        for seed in range(SEEDS)
    ]
    engine.finish()
    found: list[str | Failed] = []
    for number in numbers:
        last = engine.replies[PEER, number][-1]
        if isinstance(last, Failed):
            found.append(last)
        elif engine.ending(number) == "stop":
            found.append(tokenizer.decode(engine.tokens(number)[:-1], skip_special_tokens=False))
    return found


def test_every_answer_validates_or_the_schema_is_refused(engine: SteppedEngine) -> None:
    checked, refused, wrong = 0, {}, []
    for name, schema in suite():
        if not isinstance(schema, dict) or "\\p" in json.dumps(schema):  # which the validator cannot read
            continue
        validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
        for outcome in outcomes(engine, schema):
            if isinstance(outcome, Failed):
                assert outcome.code == "invalid"
                refused[name] = outcome.message
            else:
                checked += 1
                error = next(validator.iter_errors(json.loads(outcome)), None)
                if error is not None:
                    wrong.append((name, json.dumps(schema), outcome, error.message))
    assert not wrong, "\n".join(map(str, wrong))
    print(f"{checked} answers checked, {len(refused)} schemas refused")
    assert checked > 500
    assert len(refused) < 240
