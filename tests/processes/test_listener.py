"""The port: taken, forbidden, foreign, handed over."""

from __future__ import annotations

import socket

import pytest

from basert.errors import ConfigError
from basert.supervisor.listener import address, listen


def test_a_free_port() -> None:
    with listen("127.0.0.1", 0, {}) as listener:
        host, port = address(listener)
        assert host == "127.0.0.1"
        with socket.create_connection((host, port)):
            pass


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "localhost"), ("::1", "[::1]"), ("::", "localhost")])
def test_addresses_for_urls(host: str, shown: str) -> None:
    with listen(host, 0, {}) as listener:
        assert address(listener)[0] == shown


def test_a_taken_port() -> None:
    with listen("127.0.0.1", 0, {}) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"Port {port} of 127.0.0.1 is taken .* with --port"):
            listen("127.0.0.1", port, {})


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "a" * 300])
def test_an_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(ConfigError, match=r"--host .* is no address of this machine"):
        listen(host, 0, {})


def test_sockets_passed_to_another_process_are_not_taken() -> None:
    with listen("127.0.0.1", 0, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}) as listener:
        assert listener.getsockname()[1]
