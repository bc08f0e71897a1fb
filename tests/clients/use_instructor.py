"""instructor, unchanged, with the server at BASERT_URL: pydantic models out of text, by tools and by schemas.

Run by test_clients.py, in the clients' own environment. What it extracts is valid by construction; none is
asked to be right.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from enum import Enum
from typing import Annotated, Any, Literal

import instructor
import openai
import pytest
from instructor import Mode
from pydantic import BaseModel, ConfigDict, Field

URL = f"{os.environ['BASERT_URL']}/v1"
ASK: dict[str, Any] = {
    "model": os.environ["BASERT_MODEL"],
    "messages": [{"role": "user", "content": "Ada, 36, lives in London. She likes tea and red apples."}],
    "temperature": 0,
    "frequency_penalty": 0.3,
    "max_tokens": 400,
    "max_retries": 0,
}
FACTS = '{"tasks": [{"about": "Bob", "sure": true}, {"about": "tea", "sure": false}]}'
MODES = [Mode.TOOLS, Mode.JSON_SCHEMA]
Word = Annotated[str, Field(max_length=24)]


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")  # so that answers end


class Thing(Model):
    name: Word
    colour: Colour
    kind: Literal["food", "drink"]


class Address(Model):
    city: Word
    country: Word | None = None


class Person(Model):
    """Somebody, and what they like."""

    name: Word
    age: Annotated[int, Field(ge=0, le=150)]
    address: Address
    likes: Annotated[list[Thing], Field(min_length=1, max_length=2)]


class Fact(Model):
    about: Word
    sure: bool


@pytest.fixture(params=MODES, ids=lambda mode: mode.name)
def client(request: pytest.FixtureRequest) -> instructor.Instructor:
    return instructor.from_openai(
        openai.OpenAI(base_url=URL, api_key="none", max_retries=0), mode=request.param
    )


def test_a_flat_model(client: instructor.Instructor) -> None:
    assert isinstance(client.create(response_model=Fact, **ASK), Fact)


def test_models_in_models_with_enums_and_lists(client: instructor.Instructor) -> None:
    person, raw = client.create_with_completion(response_model=Person, **ASK)
    assert isinstance(person.address, Address)
    assert all(isinstance(thing.colour, Colour) for thing in person.likes)
    assert raw.usage.total_tokens == raw.usage.prompt_tokens + raw.usage.completion_tokens


def test_partial_models_grow_to_the_whole(client: instructor.Instructor) -> None:
    partials = list(client.create_partial(response_model=Person, strict=False, **ASK))
    assert len(partials) > 5
    assert isinstance(Person.model_validate(partials[-1].model_dump()), Person)


def test_a_stream_of_models(client: instructor.Instructor) -> None:
    """The schema that instructor sends does not require the list: the model is shown one."""
    shown = [{"role": "user", "content": "Bob likes tea."}, {"role": "assistant", "content": FACTS}]
    asked = {**ASK, "messages": [*shown, *ASK["messages"]]}
    facts = list(client.create_iterable(response_model=Fact, **asked))
    assert facts
    assert all(isinstance(fact, Fact) for fact in facts)


def test_the_responses_api() -> None:
    raw = openai.OpenAI(base_url=URL, api_key="none", max_retries=0)
    client = instructor.from_openai(raw, mode=Mode.RESPONSES_TOOLS)
    asked = {name: ASK[name] for name in ("model", "messages", "temperature", "max_retries")}
    assert isinstance(client.create(response_model=Person, max_output_tokens=400, **asked), Person)
    *_, last = client.create_partial(response_model=Person, strict=False, max_output_tokens=400, **asked)
    assert isinstance(Person.model_validate(last.model_dump()), Person)


@pytest.mark.xfail(reason="instructor leaves it to the model whether to call at all")
def test_parallel_tools() -> None:
    raw = openai.OpenAI(base_url=URL, api_key="none", max_retries=0)
    client = instructor.from_openai(raw, mode=Mode.PARALLEL_TOOLS)
    for one in client.create(response_model=Iterable[Fact | Address], **ASK):
        assert isinstance(one, Fact | Address)


async def test_the_async_client() -> None:
    async with openai.AsyncOpenAI(base_url=URL, api_key="none", max_retries=0) as raw:
        client = instructor.from_openai(raw, mode=Mode.TOOLS)
        assert isinstance(await client.create(response_model=Fact, **ASK), Fact)
        partials = [one async for one in client.create_partial(response_model=Fact, **ASK)]
        assert isinstance(Fact.model_validate(partials[-1].model_dump()), Fact)
