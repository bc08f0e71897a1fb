"""An engine's end of its sockets: every peer behind one selector, nothing that blocks a step.

It imports no asyncio, whose 30 ms every start of an engine would pay.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

from basert.frames import TransportError, Unpacker, pack
from basert.messages import AnyMessage, Message

MAX_BACKLOG = 64 << 20  # bytes queued for a peer that does not read
# A socket holds some 200 KB. The rest of a longer frame is worth waiting for, so many seconds for each part
# and for all of them: else each part of it would wait for a step.
PART_WAIT, FRAME_WAIT = 0.001, 0.01
_LISTENER, _WAKER = 0, -1  # what the selector knows them by; peers are positive


class _Peer:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.unpacker = Unpacker()
        self.outgoing = bytearray()


class Hub:
    """Listens, reads and writes without ever blocking a step.

    Peers are known by small integers from 1. A lost peer is reported as (peer, None), once; one that does not
    read what it is sent (MAX_BACKLOG) is given up.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._peers: dict[int, _Peer] = {}
        self._next = 1
        self._listener: socket.socket | None = None
        self._path: Path | None = None
        self._wakers = socket.socketpair()  # ours, which poll() reads, and what wakes it
        self._signals = False
        for sock in self._wakers:
            sock.setblocking(False)
        self._selector.register(self._wakers[0], selectors.EVENT_READ, _WAKER)
        self.greeting: Callable[[], list[Message]] = list  # sent to each peer that connects

    def wake_on_signals(self) -> None:
        """Let a signal that has a Python handler end a waiting poll(). Main thread only."""
        signal.set_wakeup_fd(self._wakers[1].fileno(), warn_on_full_buffer=False)
        self._signals = True

    def wake(self) -> None:
        """End a waiting poll(), or the next one. From any thread."""
        with contextlib.suppress(BlockingIOError):  # it is full: poll() has enough to wake for
            self._wakers[1].send(b"\0")

    def listen(self, path: Path) -> None:
        """Start accepting on a Unix socket that only this user may open."""
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(128)
        listener.setblocking(False)
        self._listener, self._path = listener, path
        self._selector.register(listener, selectors.EVENT_READ, _LISTENER)

    def connect(self, path: Path) -> int:
        """Connect to a listening socket (the supervisor's) and treat it as one more peer."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.connect(str(path))
        return self._add(sock)

    def poll(self, timeout: float | None) -> list[tuple[int, AnyMessage | None]]:
        """Messages that have come, waiting for at most `timeout` seconds (None: for ever, 0: not at all)."""
        events, halfway = self._look(timeout)
        until = time.monotonic() + FRAME_WAIT
        while halfway and time.monotonic() < until:
            more, halfway = self._look(PART_WAIT)
            events += more
        return events

    def _look(self, timeout: float | None) -> tuple[list[tuple[int, AnyMessage | None]], bool]:
        """Read what is there, once; and whether of a frame only a part has come."""
        events: list[tuple[int, AnyMessage | None]] = []
        halfway = False
        for key, mask in self._selector.select(timeout):
            if key.data == _LISTENER:
                self._accept()
            elif key.data == _WAKER:
                cast(socket.socket, key.fileobj).recv(4096)
            else:
                if mask & selectors.EVENT_WRITE:
                    self._write(key.data)
                if mask & selectors.EVENT_READ:
                    events += self._read(key.data)
                    halfway |= key.data in self._peers and self._peers[key.data].unpacker.halfway
        return events, halfway

    def send(self, peer: int, messages: Iterable[Message]) -> None:
        """Queue one frame and write what the socket takes now; a peer that is gone is skipped."""
        state = self._peers.get(peer)
        if state is not None:
            state.outgoing += pack(messages)
            self._write(peer)

    @property
    def peers(self) -> list[int]:
        return list(self._peers)

    def close(self) -> None:
        """Write what is still queued (briefly blocking), then close and remove the socket file."""
        for peer, state in list(self._peers.items()):
            with contextlib.suppress(OSError):
                state.sock.settimeout(1.0)
                state.sock.sendall(state.outgoing)
            self._drop(peer)
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        if self._signals:
            signal.set_wakeup_fd(-1)
        for sock in self._wakers:
            sock.close()
        self._selector.close()

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            sock, _ = self._listener.accept()
            self.send(self._add(sock), self.greeting())

    def _add(self, sock: socket.socket) -> int:
        sock.setblocking(False)
        peer, self._next = self._next, self._next + 1
        self._peers[peer] = _Peer(sock)
        self._selector.register(sock, selectors.EVENT_READ, peer)
        return peer

    def _read(self, peer: int) -> list[tuple[int, AnyMessage | None]]:
        state = self._peers[peer]
        try:
            data = state.sock.recv(1 << 18)
            if data:
                return [(peer, message) for message in state.unpacker.feed(data)]
        except BlockingIOError:
            return []
        except (OSError, TransportError):
            pass
        self._drop(peer)
        return [(peer, None)]

    def _write(self, peer: int) -> None:
        """Write what the socket takes now. A loss is left to the read side, which reports it."""
        state = self._peers[peer]
        try:
            while state.outgoing:
                del state.outgoing[: state.sock.send(state.outgoing)]
        except BlockingIOError:
            if len(state.outgoing) > MAX_BACKLOG:
                state.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            state.outgoing.clear()
        want = selectors.EVENT_READ | (selectors.EVENT_WRITE if state.outgoing else 0)
        self._selector.modify(state.sock, want, peer)

    def _drop(self, peer: int) -> None:
        state = self._peers.pop(peer)
        self._selector.unregister(state.sock)
        state.sock.close()
