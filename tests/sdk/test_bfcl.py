"""Function calls that a model is made to do: the Berkeley leaderboard's questions to the starter model."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion

from tests.packages import unpacked
from tests.serving import Server

EVERY = int(os.environ.get("BASERT_BFCL_EVERY", "25"))  # 1: all cases, some ten minutes
AT_ONCE = 16
MOST_CUT = 0.1  # of the answers: a small model may go on with a list or a text for ever
SUBSETS = ["simple_python", "multiple", "parallel"]
KINDS = {"dict": "object", "float": "number", "tuple": "array", "any": None}


@pytest.fixture(scope="module")
def server(smollm2_w8a8: Path) -> Iterator[Server]:
    with Server([smollm2_w8a8], ("--continuous-batching", "8")) as running:
        yield running


def cases(subset: str) -> list[dict[str, Any]]:
    path = unpacked("bfcl-eval==2026.3.23") / f"BFCL_v4_{subset}.json"
    return [json.loads(line) for line in path.read_text().splitlines()][::EVERY]


def as_schema(value: Any) -> Any:
    """The leaderboard's type names as JSON Schema has them."""
    if isinstance(value, list):
        return [as_schema(one) for one in value]
    if not isinstance(value, dict):
        return value
    schema = {key: as_schema(one) for key, one in value.items() if key != "optional"}
    if isinstance(kind := schema.get("type"), str) and kind in KINDS:
        schema = {key: one for key, one in schema.items() if key != "type"}
        schema |= {"type": KINDS[kind]} if KINDS[kind] else {}
    return schema


def tools_of(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Names as OpenAI allows them."""
    return [
        {"type": "function", "function": {**as_schema(one), "name": one["name"].replace(".", "_")}}
        for one in case["function"]
    ]


CUT = "cut off"


def complaints(case: dict[str, Any], answer: ChatCompletion, *, several: bool) -> Iterator[str]:
    choice = answer.choices[0]
    if choice.finish_reason == "length":
        yield CUT
        return
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools_of(case)}
    calls = choice.message.tool_calls or []
    if choice.finish_reason != "tool_calls" or not calls or (len(calls) > 1 and not several):
        yield f"{case['id']}: {choice.finish_reason}, {len(calls)} calls"
    for call in calls:
        assert call.type == "function"
        arguments = json.loads(call.function.arguments)
        for error in Draft202012Validator(schemas[call.function.name]).iter_errors(arguments):
            yield f"{case['id']}: {call.function.name}({call.function.arguments}): {error.message}"


async def ask(
    client: AsyncOpenAI, turn: asyncio.Semaphore, case: dict[str, Any], *, several: bool
) -> list[str]:
    async with turn:
        answer = await create(client, case, several=several)
    return list(complaints(case, answer, several=several))


async def create(client: AsyncOpenAI, case: dict[str, Any], *, several: bool) -> ChatCompletion:
    return await client.chat.completions.create(
        model="smollm2-w8a8",
        messages=case["question"][0],
        tools=tools_of(case),  # type: ignore[arg-type]
        tool_choice="required",
        parallel_tool_calls=several,
        temperature=0,
        frequency_penalty=0.2,
        max_tokens=1000,
    )


@pytest.mark.parametrize("subset", SUBSETS)
async def test_every_required_call_fits_its_schema(server: Server, subset: str) -> None:
    several = subset == "parallel"
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=280) as client:
        turn = asyncio.Semaphore(AT_ONCE)
        asked = [ask(client, turn, case, several=several) for case in cases(subset)]
        found = [line for lines in await asyncio.gather(*asked) for line in lines]
    wrong = [line for line in found if line != CUT]
    assert not wrong, "\n".join(wrong)
    print(f"{subset}: {len(asked)} answers, {len(found)} of them cut off")
    assert len(found) <= MOST_CUT * len(asked)
