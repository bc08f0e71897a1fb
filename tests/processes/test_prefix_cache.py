"""The prefix cache as a client and an operator see it: usage, /metrics, the settings, the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from basert.config import load
from basert.errors import ConfigError
from tests.serving import Server
from tests.tiny import write_testing_bundle

PROMPT = list(range(10, 210))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_testing_bundle(tmp_path_factory.mktemp("b"), sentence="", max_context=1000, slots=4)


@pytest.fixture
def client(bundle: Path) -> Iterator[OpenAI]:
    with Server([bundle]) as server, server.openai() as client:
        yield client


def complete(client: OpenAI, prompt: list[int], model: str = "tiny") -> int:
    """The cached tokens of a prompt."""
    answer = client.completions.create(model=model, prompt=prompt, max_tokens=3, temperature=0)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    return answer.usage.prompt_tokens_details.cached_tokens or 0


def test_completions_tell_what_was_cached(client: OpenAI) -> None:
    assert [complete(client, PROMPT), complete(client, [*PROMPT, 7, 8])] == [0, 200]
    asked = {"model": "tiny", "prompt": PROMPT, "max_tokens": 3, "temperature": 0}
    *_, last = client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    assert last.usage.prompt_tokens_details.cached_tokens == 199
    both = client.completions.create(**asked | {"prompt": [PROMPT, [*PROMPT, 9]]})
    assert both.usage.prompt_tokens_details.cached_tokens == 199 + 200
    metrics = httpx.get(str(client.base_url.join("/metrics"))).text
    for name, value in {
        "engine_cached_tokens_total": 200 + 199 + 199 + 200,
        "engine_prefix_cache_queries_total": 5,
        "engine_prefix_cache_hits_total": 4,
        "engine_prefix_cache_evictions_total": 0,
    }.items():
        assert f'basert_{name}{{model="tiny",replica="0"}} {float(value)}\n' in metrics
    assert 'basert_prefix_cache_tokens{model="tiny",replica="0"} ' in metrics


def test_chat_answers_share_one_prompt(client: OpenAI) -> None:
    """A prompt counts once, however many answers it has: what the first of them found is what was cached."""
    asked = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "hello the world " * 20}],
        "max_tokens": 4,
        "n": 4,
        "seed": 1,
    }
    first = client.chat.completions.create(**asked)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    *_, last = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    assert last.usage.prompt_tokens_details.cached_tokens == last.usage.prompt_tokens - 1
    assert last.usage.prompt_tokens == first.usage.prompt_tokens
    metrics = httpx.get(str(client.base_url.join("/metrics"))).text
    [found] = re.findall(
        r'^basert_engine_cached_tokens_total\{model="tiny",replica="0"\} (.*)$', metrics, re.MULTILINE
    )
    length = first.usage.prompt_tokens
    assert 7 * (length - length % 64) <= float(found) <= 7 * (length - 1)  # 64: the longest chunk


def test_it_can_be_switched_off(bundle: Path) -> None:
    with Server([bundle], ["--no-prefix-cache"]) as server, server.openai() as client:
        assert [complete(client, PROMPT) for _ in range(2)] == [0, 0]


def test_two_models_keep_files_of_their_own(bundle: Path, tmp_path: Path) -> None:
    other = write_testing_bundle(tmp_path / "b", name="other", sentence="", max_context=1000, peak=5.0)
    file = tmp_path / "prefixes"
    for found in (0, 199):
        with Server([bundle, other], ["--prefix-cache-file", str(file)]) as server, server.openai() as client:
            assert [complete(client, PROMPT, model) for model in ("tiny", "other")] == [found, found]
            assert server.stop() == 0
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert names == {"prefixes.tiny", "prefixes.other"}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"prefix_cache": False, "prefix_cache_file": Path("x")}, "switches off"),
        ({"prefix_cache_file": Path("/")}, "must be a file"),
        ({"prefix_cache_file": Path("missing/x")}, "in a folder that exists"),
    ],
)
def test_settings_that_make_no_sense_are_refused(flags: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(flags, {})
