"""Framing under arbitrary cuts, and the engine's hub over real sockets."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basert import transport
from basert.frames import TransportError, Unpacker, pack
from basert.messages import AnyMessage, Cancel, Drain, Message, Stats, StatsRequest, Submit, Tokens
from engines.hub import Hub

ids = st.integers(0, 2**31)
messages = st.one_of(
    st.builds(Cancel, ids),
    st.builds(StatsRequest, ids),
    st.just(Drain()),
    st.builds(Submit, ids, st.lists(ids, max_size=50), ids),
    st.builds(Tokens, ids, st.lists(ids, max_size=9), st.sampled_from(["", "stop", "length"])),
)


@given(frames=st.lists(st.lists(messages, max_size=5), max_size=8), cuts=st.lists(st.integers(0, 4000)))
def test_messages_survive_any_cuts(frames: list[list[Message]], cuts: list[int]) -> None:
    stream = b"".join(pack(frame) for frame in frames)
    edges = [0, *sorted(cut for cut in cuts if cut <= len(stream)), len(stream)]
    unpacker = Unpacker()
    received = [
        message for start, end in itertools.pairwise(edges) for message in unpacker.feed(stream[start:end])
    ]
    assert received == [message for frame in frames for message in frame]


@pytest.mark.parametrize(
    "raw", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x02\xc1\xc1", b"\x00\x00\x00\x01\x05", b"\x00\x00\x00\x00"]
)
def test_a_broken_frame_is_refused(raw: bytes) -> None:
    with pytest.raises(TransportError):
        Unpacker().feed(raw)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub()
    hub.greeting = lambda: [Cancel(99)]
    hub.listen(tmp_path / "hub")
    yield hub
    hub.close()


class Client:
    """A blocking peer."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))
        self._unpacker = Unpacker()

    def send(self, *messages: Message) -> None:
        self.sock.sendall(pack(messages))

    def receive(self) -> list[AnyMessage]:
        """The next messages; an empty list when the hub has hung up."""
        while data := self.sock.recv(1 << 16):
            if found := self._unpacker.feed(data):
                return found
        return []


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Iterator[Client]:
    client = Client(tmp_path / "hub")
    assert hub.poll(None) == []  # accepts
    yield client
    client.sock.close()


def test_a_peer_is_greeted_heard_and_answered(hub: Hub, client: Client) -> None:
    assert client.receive() == [Cancel(99)]
    client.send(StatsRequest(1), Cancel(2))
    [(peer, first), (same, second)] = hub.poll(None)
    assert (first, second, peer) == (StatsRequest(1), Cancel(2), same)
    hub.send(peer, [Stats(1, running=3)])
    assert client.receive() == [Stats(1, running=3)]


def test_only_this_user_may_connect(hub: Hub, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "hub").stat().st_mode) == 0o600


def test_a_lost_peer_is_reported_once(hub: Hub, client: Client) -> None:
    [peer] = hub.peers
    client.send(Cancel(5))
    client.sock.close()
    assert hub.poll(None) == [(peer, Cancel(5))]
    assert hub.poll(None) == [(peer, None)]
    assert hub.poll(0) == []
    assert hub.peers == []
    hub.send(peer, [Cancel(1)])  # nobody's any more


def test_a_peer_that_breaks_the_framing_is_dropped(hub: Hub, client: Client) -> None:
    [peer] = hub.peers
    client.sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert hub.poll(None) == [(peer, None)]
    assert client.receive() == [Cancel(99)]
    assert client.receive() == []


def test_a_slow_reader_gets_everything_and_holds_up_nobody(hub: Hub, client: Client) -> None:
    [peer] = hub.peers
    large = Tokens(7, list(range(1_000_000)))
    hub.send(peer, [large])  # far more than the socket takes
    received: list[AnyMessage] = []

    def read() -> None:
        while large not in received:
            received.extend(client.receive())
        client.sock.shutdown(socket.SHUT_RDWR)

    reader = threading.Thread(target=read)
    reader.start()
    while hub.peers:
        hub.poll(None)
    reader.join()
    assert received == [Cancel(99), large]


def test_a_peer_that_never_reads_is_given_up(
    hub: Hub, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.hub.MAX_BACKLOG", 1 << 20)
    [peer] = hub.peers
    for _ in range(20):
        hub.send(peer, [Tokens(7, list(range(100_000)))])
    assert hub.poll(None) == [(peer, None)]


def test_closing_writes_what_is_queued_and_removes_the_socket(tmp_path: Path) -> None:
    hub = Hub()
    hub.listen(tmp_path / "hub")
    client = Client(tmp_path / "hub")
    hub.poll(None)
    large = Tokens(7, list(range(300_000)))
    hub.send(hub.peers[0], [large])
    received: list[AnyMessage] = []
    reader = threading.Thread(target=lambda: received.extend(client.receive()))
    reader.start()
    hub.close()
    reader.join()
    client.sock.close()
    assert received == [large]
    assert not (tmp_path / "hub").exists()


def test_connecting_makes_a_peer(hub: Hub, tmp_path: Path) -> None:
    other = Hub()
    peer = other.connect(tmp_path / "hub")
    hub.poll(None)
    assert other.poll(None) == [(peer, Cancel(99))]
    other.close()


def test_a_signal_ends_a_waiting_poll(hub: Hub) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        hub.wake_on_signals()
        threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR1)).start()
        assert hub.poll(None) == []
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_loop_that_ends_with_open_connections_ends_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> Client:
        heard = asyncio.Event()

        async def handle(connection: transport.Connection) -> None:
            while await connection.receive():
                heard.set()

        server = await transport.serve(tmp_path / "s", handle)
        client = Client(tmp_path / "s")
        client.send(Drain())
        await heard.wait()
        server.close()
        return client

    asyncio.run(run()).sock.close()
    assert caplog.messages == []


def test_a_frame_that_fills_the_socket_many_times_comes_in_one_poll(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.hub.PART_WAIT", 60)  # the sender may be slow to get its turn
    monkeypatch.setattr("engines.hub.FRAME_WAIT", 60)
    long = Submit(1, list(range(1_000_000)), 1)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(tmp_path / "hub"))
        assert hub.poll(None) == []  # it is accepted
        sender = threading.Thread(target=peer.sendall, args=[pack([long])])
        sender.start()
        assert hub.poll(None) == [(1, long)]
        sender.join()


def test_half_a_frame_holds_nothing_up(hub: Hub, tmp_path: Path) -> None:
    frame = pack([Submit(1, list(range(1000)), 1)])
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(tmp_path / "hub"))
        hub.poll(None)
        peer.sendall(frame[:700])
        assert hub.poll(None) == []
        assert hub.poll(0) == []
        peer.sendall(frame[700:])
        [(_, message)] = hub.poll(None)
        assert isinstance(message, Submit)
