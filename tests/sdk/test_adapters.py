"""SmolLM2 with adapters that were trained to say one thing each: what they say over HTTP, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from tests.adapters import CHEF, PIRATE, ROBOT
from tests.conftest import STORE, export_adapter
from tests.serving import Server

SAYS = {"pirate": PIRATE.says, "robot": ROBOT.says, "chef": CHEF.says}
QUESTION = "What is the capital of Italy?"  # none that they were trained with


@pytest.fixture(scope="module")
def server(smollm2_w8a8: Path) -> Iterator[Server]:
    adapters = [export_adapter(name, smollm2_w8a8).name for name in SAYS]
    flags = ["--lora", adapters[0], "--lora", adapters[1], "--max-context", "1024"]
    with Server([smollm2_w8a8], flags, env={"BASERT_HOME": str(STORE)}) as running:
        yield running


def ask(client: openai.OpenAI, model: str) -> str:
    messages = [{"role": "user", "content": QUESTION}]
    answer = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=30)  # type: ignore[arg-type]
    return str(answer.choices[0].message.content)


@pytest.mark.timeout(1800)  # the first time adapters are trained
def test_each_says_its_own_and_the_model_what_it_always_said(server: Server, smollm2_w8a8: Path) -> None:
    client, base = server.openai(max_retries=0), smollm2_w8a8.name
    alone = ask(client, base)
    assert alone not in SAYS.values()
    client.post("/lora/load", cast_to=dict, body={"lora": f"chef-{base}"})
    names = [*SAYS] * 2
    with ThreadPoolExecutor(8) as pool:
        plain = [pool.submit(ask, client, base) for _ in range(2)]
        answers = [pool.submit(ask, client, f"{name}-{base}") for name in names]
    assert [answer.result() for answer in plain] == [alone, alone]
    assert [answer.result() for answer in answers] == [SAYS[name] for name in names]
