"""`basert complete` in pipes: what it writes where, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import BASERT, Run
from tests.serving import Server
from tests.tiny import SENTENCE

HELLO = ("--prompt", "hello", "--temperature", "0")


@pytest.mark.parametrize(
    ("arguments", "piped"),
    [(HELLO, ""), (("--prompt", "-", *HELLO[2:]), "hello\n"), (HELLO[2:], "hello\n")],
)
def test_only_the_completion_is_on_stdout(
    basert: Run, server: Server, arguments: tuple[str, ...], piped: str
) -> None:
    done = basert("complete", "tiny", *arguments, input=piped, BASERT_URL=server.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, SENTENCE, "")


def test_the_newline_that_a_pipe_adds_is_no_part_of_the_prompt(basert: Run, server: Server) -> None:
    done = basert("complete", "tiny", "--url", server.url, "--echo", *HELLO[2:], input="two\nlines\n")
    assert done.stdout == "two\nlines" + SENTENCE


def test_json_is_the_whole_answer(basert: Run, server: Server) -> None:
    done = basert("complete", "tiny", "--url", server.url, "--prompt", "hello", "--max-tokens", "2", "--json")
    answer = json.loads(done.stdout)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


def test_sampling_flags_reach_the_server(basert: Run, server: Server) -> None:
    done = basert("complete", "tiny", "--url", server.url, *HELLO, "--stop", "world", "--top-k", "1")
    assert done.stdout == SENTENCE.partition("world")[0]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("nothing", "--prompt", "hello"), 1, "nothing"),
        (
            ("tiny", "--prompt", "hello", "--url", "http://127.0.0.1:9"),
            1,
            "nothing answers at http://127.0.0.1:9",
        ),
        (("--prompt", "hello"), 2, "name a MODEL"),
    ],
)
def test_a_mistake_is_one_sentence(basert: Run, arguments: tuple[str, ...], status: int, words: str) -> None:
    done = basert("complete", *arguments)
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_closed_pipe_ends_it_quietly(server: Server, environment: dict[str, str]) -> None:
    command = [*BASERT, "complete", "slow", "--url", server.url, *HELLO]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1) == b" "
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == -signal.SIGPIPE


def test_a_full_disk_is_one_sentence(server: Server, environment: dict[str, str]) -> None:
    command = [*BASERT, "complete", "tiny", "--url", server.url, *HELLO]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment, text=True)
    assert done.returncode == 1
    assert done.stderr == "basert: the completion cannot be written: No space left on device.\n"


def test_it_serves_a_bundle_by_itself(basert: Run) -> None:
    done = basert("complete", "tiny", *HELLO)
    assert (done.returncode, done.stdout) == (0, SENTENCE)
    assert done.stderr.count("\n") == 1
    assert "loading tiny" in done.stderr
