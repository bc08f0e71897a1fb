"""A `basert serve` of one's own, for as long as a command runs (basert.server_process)."""

from __future__ import annotations

import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

import click

from basert.server_process import HOST, ServerProcess, free_port, own_environment


class LocalServer(ServerProcess):
    """`with LocalServer(["smollm2"]) as server:` serves until the block ends; Unavailable when it cannot.

    `url`, `api_key` (other users of this machine can reach 127.0.0.1 too) and `pid` are set from the start.
    """

    def __init__(
        self,
        models: Sequence[str],
        flags: Sequence[str] = (),
        *,
        api_key: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.api_key = api_key
        port = free_port()
        serve = [
            sys.executable,
            "-m",
            "basert",
            "serve",
            *models,
            "--host",
            HOST,
            "--port",
            str(port),
            *flags,
        ]
        super().__init__(serve, port=port, env={**_environment(api_key), **(env or {})}, ready_path="/readyz")


def _environment(api_key: str | None) -> dict[str, str]:
    """The key goes here, for anybody can read a command line."""
    return own_environment() | ({"BASERT_API_KEY": api_key} if api_key else {})


def serve_for_me(bundle: Path, flags: Sequence[str] = ()) -> LocalServer:
    """A server for one bundle and this process alone, with a line on stderr while it loads."""
    exit_on_signals()
    click.echo(f"loading {bundle.name} …", err=True)
    own = ("--workers", "1", "--drain-timeout", "0", "--restart-limit", "2", "--request-timeout", "0")
    return LocalServer([str(bundle)], (*own, *flags), api_key=secrets.token_hex(16))


def exit_on_signals() -> None:
    """End by SystemExit on SIGTERM and SIGHUP, so that `with` blocks end."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)


def _exit(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
