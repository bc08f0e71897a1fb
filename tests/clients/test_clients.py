"""Client libraries, unchanged, against a real server with the starter model.

Those in Python live in an environment of their own: their packages and ours do not go together. A small
model is asked for what it cannot get wrong: required calls, schemas, greedy answers.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.javascript import run_node_tests
from tests.makefile import made
from tests.serving import Server
from tests.tiny import write_testing_bundle, write_testing_encoder

FOLDER = Path(__file__).parent
MODEL = "smollm2-w8a8"


@pytest.fixture(scope="module")
def server(smollm2_w8a8: Path) -> Iterator[Server]:
    with Server([smollm2_w8a8]) as running:
        yield running


@pytest.fixture(scope="module")
def env(server: Server) -> dict[str, str]:
    return {"BASERT_URL": server.url, "BASERT_MODEL": MODEL}


@pytest.fixture(scope="module")
def clients() -> Path:
    """The commands of the clients' own environment."""
    return made(".cache/clients/.made") / "bin"


def run(*command: str | Path, env: Mapping[str, str]) -> str:
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_tests(clients: Path, file: str, env: Mapping[str, str]) -> int:
    """How many of a file's tests passed; the others were skipped or may fail."""
    pytest_ = (clients / "python", "-m", "pytest", "-q", "-c", FOLDER / "inside.ini")
    said = run(*pytest_, FOLDER / file, env=env)
    print(said)
    passed = re.search(r"(\d+) passed", said)
    assert passed, said
    return int(passed[1])


def test_langchain(clients: Path, env: Mapping[str, str]) -> None:
    assert run_tests(clients, "use_langchain.py", {**env, "LANGSMITH_TRACING": "false"}) == 41


def test_encoders(clients: Path, tmp_path: Path) -> None:
    """LangChain's embeddings and Cohere's client."""
    prompts = {"query": "find: ", "document": "text: "}
    bundles = [
        write_testing_bundle(tmp_path),
        write_testing_encoder(tmp_path, prompts=prompts, truncatable=[4]),
        write_testing_encoder(tmp_path, name="ranker", task="classification", token_types=True),
    ]
    with Server(bundles) as server:
        assert run_tests(clients, "use_encoders.py", {"BASERT_URL": server.url}) == 11


def test_instructor(clients: Path, env: Mapping[str, str]) -> None:
    assert run_tests(clients, "use_instructor.py", env) == 10


def test_ai_sdk(env: Mapping[str, str]) -> None:
    run_node_tests("ai.test.mjs", 9, env)


def test_llm(clients: Path, server: Server, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- {{model_id: here, model_name: {MODEL}, api_base: {server.url}/v1, supports_schema: true}}\n"
    )
    env = {"LLM_USER_PATH": str(tmp_path)}
    ask = (clients / "llm", "-m", "here", "-o", "temperature", "0", "-o", "max_tokens", "24")
    streamed = run(*ask, "Why is the sky blue?", env=env)
    assert streamed.strip()
    assert streamed == run(*ask, "--no-stream", "Why is the sky blue?", env=env)
    chunks, whole = json.loads(run(clients / "llm", "logs", "--json", "-n", "2", env=env))
    assert chunks["response_json"]["object"] == "chat.completion.chunk"
    for counted in ("input_tokens", "output_tokens"):
        assert chunks[counted] == whole[counted] > 0
