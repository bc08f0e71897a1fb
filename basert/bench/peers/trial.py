"""What a comparison needs to know of its workloads, whatever they ask for. Knows no server and no request."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from basert.bench.load import Outcome
from basert.bench.results import percentile
from basert.client import Client


@dataclass(frozen=True)
class Subject:
    """A server as the trials see it; disciplines add what they ask it."""

    client: Client
    model: str
    pid: int


Of = TypeVar("Of", bound=Subject)


@dataclass(frozen=True)
class Trial(ABC, Generic[Of]):
    name: str
    about: str
    headline: str  # the metric that it is about

    @abstractmethod
    async def measure(self, subject: Of) -> dict[str, float]:
        """Values by the names of METRICS. Raises RequestFailed where the server does not do what is asked.

        Empty where it is none that this could be asked of.
        """


class Discipline(ABC, Generic[Of]):
    """What all servers of a comparison do: how one is met for the first time, and warmed up."""

    method: ClassVar[tuple[str, ...]]  # lines of the report
    keep_alive: ClassVar[bool]  # whether all of them keep a connection that is idle for a while

    @abstractmethod
    def subject(self, client: Client, model: str, pid: int) -> Of:
        """The server at the other end of `client`."""

    @abstractmethod
    async def first_answer(self, subject: Of) -> float:
        """When the first of an answer came, in perf_counter seconds. Raises RequestFailed."""

    @abstractmethod
    async def warm_up(self, subject: Of, streams: int) -> None:
        """What grows with use has grown after this. Raises RequestFailed."""


def latency(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """From sending a request to its whole answer, by the names of METRICS; they were all answered."""
    ordered = sorted(one.arrivals[-1] - one.sent for one in outcomes)
    found = {"latency_ms": percentile(ordered, 0.5), "latency_p99_ms": percentile(ordered, 0.99)}
    return {name: value for name, value in found.items() if value is not None}
