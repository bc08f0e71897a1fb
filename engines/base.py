"""What every engine does with what peers send it: requests, cancels, drains, questions for its counters."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from basert.messages import (
    AdapterDone,
    AdapterInfo,
    AnyMessage,
    Cancel,
    Drain,
    Encode,
    Failed,
    LoadAdapter,
    Message,
    Stats,
    StatsRequest,
    Submit,
    UnloadAdapter,
)
from engines.stats import Counters, resident_bytes

Publish = Callable[[int, list[Message]], None]
Reply = tuple[int, Message]  # peer, message

_log = logging.getLogger(__name__)


class BaseEngine(ABC):
    """What engines/__main__.py drives: poll for at most `patience`, `receive` what came, `step`."""

    def __init__(self, counters: Counters, publish: Publish) -> None:
        """publish: sends a peer one frame."""
        self._counters = counters
        self._publish = publish

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether there is a request that has not ended."""

    @property
    @abstractmethod
    def patience(self) -> float | None:
        """Seconds that may be waited for messages before the next step; None: for ever."""

    @property
    @abstractmethod
    def draining(self) -> bool: ...

    @property
    def adapters(self) -> list[AdapterInfo]:
        """Those that are loaded."""
        return []

    @abstractmethod
    def drain(self) -> None:
        """Refuse what comes from now on; what is here goes on."""

    @abstractmethod
    def step(self) -> None:
        """Do what can be done now. Raises when the runtime is not to be trusted any more."""

    @abstractmethod
    def save(self) -> None:
        """Write what the next start can use."""

    @abstractmethod
    def close(self) -> None:
        """End what runs beside the main thread."""

    def receive(self, peer: int, message: AnyMessage | None) -> None:
        """Take in a peer's message, or (None) its loss."""
        match message:
            case Submit() | Encode():
                if refusal := self._submit(peer, message):
                    self._publish(peer, [refusal])
            case Cancel():
                self._cancel(peer, message.id)
            case StatsRequest():
                self._publish(peer, [self._stats(message.id)])
            case LoadAdapter() | UnloadAdapter():
                self._adapt(peer, message)
            case Drain():
                self.drain()
            case None:
                self._leave(peer)
            case _:
                _log.warning("peer %d sent a %s, which engines do not take", peer, type(message).__name__)

    @abstractmethod
    def _submit(self, peer: int, message: Submit | Encode) -> Failed | None:
        """Let a request in, or say why not."""

    def _adapt(self, peer: int, message: LoadAdapter | UnloadAdapter) -> None:
        """Load or unload an adapter; what cannot take any says so."""
        self._publish(
            peer, [AdapterDone(message.id, "this model takes no adapters; those are for decoders.")]
        )

    @abstractmethod
    def _cancel(self, peer: int, number: int) -> None:
        """Forget a request, whatever its state; unknown ones have ended already."""

    @abstractmethod
    def _leave(self, peer: int) -> None:
        """Cancel all that a lost peer had asked for."""

    @abstractmethod
    def _gauges(self) -> dict[str, Any]:
        """Those of the fields of Stats that are no counters."""

    def _stats(self, number: int) -> Stats:
        told = self._counters.told() | self._gauges()
        return Stats(id=number, resident_bytes=resident_bytes(), **told)

    def _send(self, replies: Iterable[Reply]) -> None:
        """One frame for each peer."""
        frames: defaultdict[int, list[Message]] = defaultdict(list)
        for peer, message in replies:
            frames[peer].append(message)
        for peer, messages in frames.items():
            self._publish(peer, messages)
