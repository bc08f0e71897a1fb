"""`basert load`, `unload` and `swap` against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.serving import Server
from tests.tiny import write_testing_adapter, write_testing_bundle


@pytest.fixture
def busy(store: Path, environment: dict[str, str]) -> Iterator[Server]:
    """A server of its own: what it serves changes."""
    if not (store / "bad").exists():
        write_testing_bundle(store, name="bad", load_error="It is made of cheese.")
    flags = ["--alias", "chat=tiny"]
    with Server(["tiny"], flags, api_key="k", env={"BASERT_HOME": environment["BASERT_HOME"]}) as running:
        yield running


def test_load_swap_and_unload(basert: Run, busy: Server) -> None:
    there = {"BASERT_URL": busy.url, "BASERT_API_KEY": "k"}
    loaded = basert("load", "slow", **there)
    assert (loaded.returncode, loaded.stdout.startswith("slow is loaded (fp_")) == (0, True), loaded.stderr
    assert "load slow …" in loaded.stderr
    swapped = basert("swap", "chat", "slow", **there)
    assert (swapped.returncode, swapped.stdout.startswith("chat is slow (fp_")) == (0, True), swapped.stderr
    assert basert("complete", "tiny", "--prompt", "a", **there).returncode == 1  # nothing means it any more
    unloaded = basert("unload", "chat", **there)
    assert (unloaded.returncode, unloaded.stdout) == (0, f"chat is unloaded at {busy.url}\n")


def test_adapters(basert: Run, tmp_path: Path) -> None:
    base = write_testing_bundle(tmp_path, name="base", lora=True)
    write_testing_adapter(tmp_path, base, name="parrot")
    with Server(["base"], env={"BASERT_HOME": str(tmp_path)}) as server:
        there = {"BASERT_URL": server.url}
        loaded = basert("load", "--lora", "parrot", **there)
        assert loaded.stdout == f"parrot is loaded, an adapter of base, at {server.url}\n", loaded.stderr
        assert basert("complete", "parrot", "--prompt", "a", **there).returncode == 0
        unloaded = basert("unload", "--lora", "parrot", **there)
        assert unloaded.stdout == f"parrot is unloaded at {server.url}\n", unloaded.stderr
        refused = basert("load", "--lora", "owl", **there)
        assert (refused.returncode, "'owl'" in refused.stderr) == (1, True), refused.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("load", "bad"), "bad cannot be loaded: It is made of cheese."),
        (("load", "../bad"), "'../bad' is no name for a bundle"),
        (("load", "slwo"), "This server's store has no bundle 'slwo'; did you mean slow?"),
        (("unload", "slow"), "The model 'slow' is not loaded; this server has tiny, chat."),
        (("swap", "talk", "slow"), "The model 'talk' is not loaded; this server has tiny, chat."),
    ],
)
def test_a_refusal_is_one_sentence(basert: Run, busy: Server, command: tuple[str, ...], words: str) -> None:
    done = basert(*command, "--url", busy.url, BASERT_API_KEY="k")
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"basert: {words}")


def test_without_a_key_or_a_server(basert: Run, busy: Server) -> None:
    assert "You didn't provide an API key" in basert("load", "slow", "--url", busy.url).stderr
    nobody = basert("unload", "slow", "--url", "http://127.0.0.1:9")
    assert (nobody.returncode, "nothing answers at http://127.0.0.1:9" in nobody.stderr) == (1, True)


@pytest.mark.parametrize("command", ["load", "unload", "swap"])
def test_help_tells_where_it_goes(basert: Run, command: str) -> None:
    told = " ".join(basert(command, "--help").stdout.split())
    assert "the server of this machine is meant, at its default port" in told
