"""The official openai-node client, unchanged, against a real server: tests/node, run by node --test."""

from __future__ import annotations

from tests.javascript import run_node_tests
from tests.sdk.conftest import KEY, magic_ids
from tests.serving import Server
from tests.tiny import SENTENCE


def test_openai_node(open_server: Server, busy_server: Server) -> None:
    env = {"BASERT_URL": open_server.url, "SENTENCE": SENTENCE, "BUSY_URL": busy_server.url, "BUSY_KEY": KEY}
    env["MAGIC_IDS"] = ",".join(map(str, magic_ids()))
    run_node_tests("openai.test.mjs", 8, env)
