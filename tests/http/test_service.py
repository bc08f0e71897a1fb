"""Everything around the completions: models, tokens, health, figures, keys, ids, limits, waiting."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from falcon.testing import ASGIConductor, Result
from prometheus_client.parser import text_string_to_metric_families

from basert.http import auth
from tests.http.fakes import FakeModels, fake_app

BODY = {"model": "alias", "prompt": "hello", "temperature": 0}


async def test_models_are_listed_and_found_by_ids_with_slashes(
    client: ASGIConductor, models: FakeModels
) -> None:
    listed = (await client.simulate_get("/v1/models")).json
    assert listed["object"] == "list"
    assert [card["id"] for card in listed["data"]] == ["org/tiny", "alias"]
    assert (await client.simulate_get("/v1/models/org/tiny")).json == listed["data"][0]
    assert (await client.simulate_get("/v1/models/org%2Ftiny")).json == listed["data"][0]
    card = listed["data"][0]
    assert (card["object"], card["created"], card["owned_by"]) == ("model", 1_700_000_000, "basert")
    missing = await client.simulate_get("/v1/models/org/other")
    assert (missing.status_code, missing.json["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_tokens_and_back(client: ASGIConductor, models: FakeModels, prefix: str) -> None:
    body = {"model": "org/tiny", "prompt": "hello 🌍<|im_end|>", "return_token_strs": True}
    told = (await client.simulate_post(f"{prefix}/tokenize", json=body)).json
    assert told["tokens"] == models.model.text.encode("hello 🌍<|im_end|>")
    assert (told["count"], told["max_model_len"]) == (len(told["tokens"]), 256)
    assert told["token_strs"][:2] == ["he", "llo"]
    assert told["token_strs"][-1] == "<|im_end|>"
    body = {"model": "org/tiny", "tokens": told["tokens"]}
    assert (await client.simulate_post(f"{prefix}/detokenize", json=body)).json == {
        "prompt": "hello 🌍<|im_end|>"
    }


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"add_generation_prompt": False},
        {"add_generation_prompt": True},
        {"continue_final_message": True},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"chat_template_kwargs": {"add_generation_prompt": False}},
    ],
)
async def test_chat_counts_the_tokens_that_tokenize_tells(tmp_path: Path, fields: dict[str, object]) -> None:
    models = FakeModels(tmp_path, max_context=4096)  # room for tools in the prompt
    client = ASGIConductor(fake_app(models))
    body = {"model": "alias", **fields}
    body["messages"] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "So "}]
    told = (await client.simulate_post("/v1/tokenize", json=body)).json
    answer = await client.simulate_post("/v1/chat/completions", json=body)
    assert answer.json["usage"]["prompt_tokens"] == told["count"] == len(told["tokens"])
    assert models.model.engine.submitted[0][0] == told["tokens"]


async def test_the_tokens_of_a_conversation_are_those_of_its_prompt(
    client: ASGIConductor, models: FakeModels
) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    told = (await client.simulate_post("/v1/tokenize", json={"model": "alias", "messages": messages})).json
    await client.simulate_post("/v1/chat/completions", json={"model": "alias", "messages": messages})
    assert models.model.engine.submitted[0][0] == told["tokens"]
    body = {"model": "alias", "messages": messages, "add_generation_prompt": False}
    assert (await client.simulate_post("/v1/tokenize", json=body)).json["count"] < told["count"]
    both = await client.simulate_post("/v1/tokenize", json=body | {"prompt": "x"})
    assert both.json["error"]["message"] == "Send either 'prompt' or 'messages'."


@pytest.mark.parametrize("path", ["/health", "/livez"])
async def test_alive_whatever_the_models_do(client: ASGIConductor, models: FakeModels, path: str) -> None:
    models.model.state, models.draining = "failed", True
    result = await client.simulate_get(path)
    assert (result.status_code, result.json) == (200, {"status": "ok"})
    assert (await client.simulate_head(path)).status_code == 200


async def test_ready_when_every_model_is_and_else_why_not(client: ASGIConductor, models: FakeModels) -> None:
    ready = await client.simulate_get("/readyz")
    assert (ready.status_code, ready.json["status"], ready.json["models"][0]["loaded"]) == (200, "ready", 1.0)
    models.model.state, models.model.reason, models.model.fraction = "restarting", "It died of signal 9.", 0.5
    not_ready = await client.simulate_get("/readyz")
    assert (not_ready.status_code, not_ready.json["status"]) == (503, "not ready")
    assert not_ready.json["reason"] == "org/tiny is restarting: It died of signal 9."
    state = {
        "name": "org/tiny",
        "state": "restarting",
        "reason": "It died of signal 9.",
        "loaded": 0.5,
        "restarts": 0,
        "needed": True,
        "replicas": [{"state": "ready", "reason": "", "restarts": 0}],
    }
    assert not_ready.json["models"] == [state]
    models.draining = True
    assert (await client.simulate_get("/readyz")).json["status"] == "draining"


async def test_a_drain_refuses_new_work_for_a_while(client: ASGIConductor, models: FakeModels) -> None:
    models.draining = True
    result = await client.simulate_post("/v1/completions", json=BODY)
    assert (result.status_code, result.headers["retry-after"]) == (503, "5")
    assert result.json["error"]["code"] == "shutting_down"


async def figures(client: ASGIConductor, path: str = "/metrics") -> dict[tuple[str, str], float]:
    """(sample, outcome) -> value."""
    families = text_string_to_metric_families((await client.simulate_get(path)).text)
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, sample.labels.get("outcome", "")): sample.value for sample in samples}


@pytest.mark.parametrize("path", ["/metrics", "/v1/metrics"])
async def test_figures_of_server_and_engine(client: ASGIConductor, models: FakeModels, path: str) -> None:
    await client.simulate_post("/v1/completions", json=BODY | {"n": 2, "max_tokens": 3})
    models.model.engine.error = ZeroDivisionError()
    await client.simulate_post("/v1/completions", json=BODY)
    found = await figures(client, path)
    assert found["basert_requests_total", "ok"] == 1
    assert found["basert_requests_total", "internal_error"] == 1
    assert found["basert_generated_tokens_total", ""] == 6
    assert found["basert_time_to_first_token_seconds_count", ""] == 2
    assert found["basert_inter_token_seconds_count", ""] == 4
    assert found["basert_open_requests", ""] == 0
    assert found["basert_engine_padded_tokens_total", ""] == 7
    assert found["basert_slots", ""] == 4
    models.model.state = "restarting"
    found = await figures(client, path)
    assert found["basert_engine_up", ""] == 0
    assert ("basert_slots", "") not in found


async def test_figures_of_an_encoder(client: ASGIConductor, models: FakeModels) -> None:
    encoder = models.add_encoder()
    for text in ("hello", ["hello", "the user"], "A" * 100):
        await client.simulate_post("/v1/embeddings", json={"model": "encoder", "input": text})
    encoder.engine.error = ZeroDivisionError()
    await client.simulate_post("/v1/embeddings", json={"model": "encoder", "input": "hello"})
    families = text_string_to_metric_families((await client.simulate_get("/metrics")).text)
    samples = [sample for family in families for sample in family.samples if "model" in sample.labels]
    labels = ("outcome", "tokens", "le")
    found = {
        (one.name.removeprefix("basert_"), *(one.labels.get(label, "") for label in labels)): one.value
        for one in samples
        if one.labels["model"] == "encoder"
    }
    assert found["requests_total", "ok", "", ""] == 2
    assert found["requests_total", "internal_error", "", ""] == 1
    assert found["open_requests", "", "", ""] == 0
    hello, two = (encoder.text.encode_batch(texts).tokens for texts in (["hello"], ["hello", "the user"]))
    assert found["prompt_tokens_total", "", "", ""] == 2 * hello + two
    figures = {"runs": 3, "inputs": 9, "input_tokens": 200, "padded_tokens": 184, "run_seconds": 0.5}
    for name, value in figures.items():
        assert found[f"engine_bucket_{name}_total", "", "32", ""] == value
        assert found[f"engine_bucket_{name}_total", "", "16", ""] == 0
    assert [found["engine_input_tokens_bucket", "", "", le] for le in ("16", "32", "+Inf")] == [2, 5, 9]
    assert found["engine_input_tokens_sum", "", "", ""] == 200


async def test_unknown_routes_and_wrong_methods_are_told_in_the_error_form(client: ASGIConductor) -> None:
    missing = await client.simulate_get("/v2/nothing")
    assert missing.status_code == 404
    error = {"message": "Unknown request URL: GET /v2/nothing. Please check the URL for typos."}
    assert missing.json == {
        "error": error | {"type": "invalid_request_error", "param": None, "code": "unknown_url"}
    }
    wrong = await client.simulate_get("/v1/chat/completions")
    assert wrong.status_code == 405
    assert wrong.json["error"]["code"] == "method_not_allowed"
    assert "POST" in wrong.headers["allow"]


@pytest.mark.parametrize("path", ["/v1/models", "/v2/nothing"])
async def test_every_answer_has_a_request_id(client: ASGIConductor, path: str) -> None:
    first, second = [(await client.simulate_get(path)).headers for _ in range(2)]
    assert first["x-request-id"] != second["x-request-id"]
    assert int(first["openai-processing-ms"]) >= 0
    kept = await client.simulate_get(path, headers={"X-Request-Id": "trace/1.2:3"})
    assert kept.headers["x-request-id"] == "trace/1.2:3"
    for bad in ("a b", "é", "x" * 129, 'a"b'):
        replaced = await client.simulate_get(path, headers={"X-Request-Id": bad})
        assert replaced.headers["x-request-id"].startswith("req_")


async def test_keys(models: FakeModels, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nsecond\n")

    async def status(key: str | None, path: str = "/v1/models") -> int:
        headers = {} if key is None else {"Authorization": key}
        result = await conductor.simulate_get(path, headers=headers)
        if result.status_code == 401:
            assert result.json["error"]["code"] == "invalid_api_key"
            assert result.headers["www-authenticate"] == "Bearer"
        return result.status_code

    async with ASGIConductor(fake_app(models, api_key=("first",), api_key_file=file)) as conductor:
        assert [await status(key) for key in ("Bearer first", "bearer second", "Bearer  first ")] == [200] * 3
        assert [await status(key) for key in (None, "Bearer wrong", "Basic first", "first", "Bearer")] == [
            401
        ] * 5
        assert await status(None, "/v2/nothing") == 401
        assert [await status(None, path) for path in sorted(auth.OPEN_PATHS)] == [200] * len(auth.OPEN_PATHS)
        file.write_text("third\n")
        models.on_reload[0]()
        assert [await status(key) for key in ("Bearer second", "Bearer third")] == [401, 200]
        file.unlink()
        models.on_reload[0]()
        assert await status("Bearer third") == 200


async def test_figures_can_be_kept_for_those_with_a_key(models: FakeModels) -> None:
    async with ASGIConductor(fake_app(models, api_key=("first",), protect_metrics=True)) as conductor:
        assert (await conductor.simulate_get("/metrics")).status_code == 401
        with_key = await conductor.simulate_get("/metrics", headers={"Authorization": "Bearer first"})
        assert with_key.status_code == 200
        assert (await conductor.simulate_get("/health")).status_code == 200


async def test_a_body_too_large_is_refused_by_its_length_and_by_its_bytes(models: FakeModels) -> None:
    async with ASGIConductor(fake_app(models, max_body_bytes=2000)) as conductor:
        small = await conductor.simulate_post("/v1/completions", json=BODY)
        assert small.status_code == 200
        body = json.dumps(BODY | {"user": "x" * 2000})
        large = await conductor.simulate_post("/v1/completions", body=body)
        assert (large.status_code, large.json["error"]["code"]) == (413, "payload_too_large")


async def asked_for_stream(models: FakeModels, **settings: object) -> Result:
    async with ASGIConductor(fake_app(models, **settings)) as conductor:
        return await conductor.simulate_post("/v1/completions", json=BODY | {"stream": True})


async def test_a_waiting_stream_is_kept_alive_by_comments(models: FakeModels) -> None:
    models.model.engine.gate = asyncio.Event()
    stream = asyncio.create_task(asked_for_stream(models, keep_alive_interval=0.1))
    while not models.model.engine.open:
        await asyncio.sleep(0)
    for _ in range(4):  # silences, which a stall makes longer but not fewer
        await asyncio.sleep(0.1)
    models.model.engine.gate.set()
    text = (await stream).text
    assert text.startswith(": keep-alive\n\n: keep-alive\n\n")
    assert text.endswith("data: [DONE]\n\n")


async def test_a_request_that_takes_too_long_ends(models: FakeModels) -> None:
    models.model.engine.gate = asyncio.Event()
    async with ASGIConductor(fake_app(models, request_timeout=0.2)) as conductor:
        result = await conductor.simulate_post("/v1/completions", json=BODY)
    assert (result.status_code, result.headers["x-should-retry"]) == (408, "false")
    assert result.json["error"]["code"] == "request_timeout"
    too_late = {"keep_alive_interval": 0.1, "request_timeout": 0.25}
    while (result := await asked_for_stream(models, **too_late)).status_code == 408:
        pass  # a stall: its time was over before the first comment
    comments, event, rest = result.text.rpartition("data: ")
    assert set(comments.split("\n\n")) == {": keep-alive", ""}
    assert event
    assert json.loads(rest)["error"]["code"] == "request_timeout"
    assert models.model.engine.open == 0
