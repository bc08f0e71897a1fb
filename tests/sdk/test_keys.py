"""Keys that may do this and not that, as openai-python meets them."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI

from tests.serving import Server
from tests.tiny import write_testing_bundle, write_testing_encoder

KEYS = """\
root
all                name=all  requests-per-minute=6000
one                name=one  models=ti*
quick              name=quick  requests-per-minute=120
few-tokens         name=few  tokens-per-minute=60
chatty             name=chatty  tokens-per-minute=1200
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("k")
    bundles = [
        write_testing_bundle(folder),
        write_testing_bundle(folder, name="other"),
        write_testing_encoder(folder, name="encoder"),
    ]
    file = folder / "keys"
    file.write_text(KEYS)
    with Server(bundles, ["--api-key-file", str(file)]) as running:
        yield running


def client(server: Server, key: str, **options: object) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key=key, **{"max_retries": 0, **options})  # type: ignore[arg-type]


def say_until_refused(client: OpenAI) -> None:
    while True:
        say(client)


def say(client: OpenAI, model: str = "tiny", **fields: object) -> str:
    made = client.completions.create(model=model, prompt="hello", max_tokens=2, extra_body=fields)
    return made.choices[0].text


def test_a_key_that_is_unknown(server: Server) -> None:
    with pytest.raises(openai.AuthenticationError):
        client(server, "wrong").models.list()


def test_a_model_that_a_key_may_not_use_is_not_there(server: Server) -> None:
    assert [model.id for model in client(server, "all").models.list()] == ["tiny", "other", "encoder"]
    one = client(server, "one")
    assert [model.id for model in one.models.list()] == ["tiny"]
    assert say(one)
    with pytest.raises(openai.NotFoundError) as refused:
        say(one, "other")
    assert refused.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError) as unknown:
        say(one, "nowhere")
    assert refused.value.message.replace("other", "nowhere") == unknown.value.message
    for ask in (
        lambda: one.models.retrieve("other"),
        lambda: one.embeddings.create(model="encoder", input="hello"),
        lambda: one.responses.create(model="other", input="hello"),
        lambda: one.chat.completions.create(model="other", messages=[{"role": "user", "content": "hello"}]),
        lambda: one.post("/tokenize", body={"model": "other", "prompt": "hello"}, cast_to=object),
    ):
        with pytest.raises(openai.NotFoundError) as refused:
            ask()
        assert refused.value.code == "model_not_found"


def test_every_answer_tells_what_is_left(server: Server) -> None:
    raw = client(server, "all").completions.with_raw_response
    first, second = (raw.create(model="tiny", prompt="hello", max_tokens=1) for _ in range(2))
    assert first.headers["x-ratelimit-limit-requests"] == "6000"
    left = [int(answer.headers["x-ratelimit-remaining-requests"]) for answer in (first, second)]
    assert 6000 > left[0] >= left[1] - 100  # they flow back as time goes by
    assert first.headers["x-ratelimit-reset-requests"].endswith("ms")
    assert "x-ratelimit-limit-tokens" not in first.headers
    listed = client(server, "all").models.with_raw_response.list()  # counts as none, and is told
    assert listed.headers["x-ratelimit-limit-requests"] == "6000"


def test_the_sdk_waits_as_long_as_it_is_told(server: Server) -> None:
    quick = client(server, "quick")
    with pytest.raises(openai.RateLimitError) as refused:
        say_until_refused(quick)
    headers = refused.value.response.headers
    assert refused.value.code == "rate_limit_exceeded"
    assert refused.value.type == "requests"
    assert 0 < float(headers["retry-after-ms"]) <= 500
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert say(quick.with_options(max_retries=2))


def test_tokens_run_out(server: Server) -> None:
    few = client(server, "few-tokens")
    with pytest.raises(openai.RateLimitError) as refused:
        say_until_refused(few)
    assert refused.value.type == "tokens"
    assert "60 tokens per minute" in refused.value.message


def test_who_names_no_max_tokens_need_not_wait_for_a_full_bucket(server: Server) -> None:
    chatty = client(server, "chatty")
    for _ in range(3):
        answer = chatty.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hello"}])
        assert answer.usage is not None
        assert answer.usage.total_tokens < 150


def test_one_key_does_not_find_what_another_has_kept(server: Server) -> None:
    kept = client(server, "all").responses.create(model="tiny", input="hello", max_output_tokens=2)
    assert client(server, "all").responses.retrieve(kept.id).id == kept.id
    with pytest.raises(openai.NotFoundError):
        client(server, "one").responses.retrieve(kept.id)


def test_figures_tell_keys_apart_by_their_names(server: Server) -> None:
    say(client(server, "one"))
    root = client(server, "root")
    figures = root.with_options(base_url=server.url).get("/metrics", cast_to=str)
    assert 'basert_requests_total{key="one",model="tiny",outcome="ok"}' in figures
    assert 'basert_generated_tokens_total{key="one",model="tiny"}' in figures
