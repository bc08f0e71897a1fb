"""The queue of an encoder: which waiting inputs share the next run, in which bucket. Pure Python, no tensor.

Requests of a lane take turns. The one whose turn it is has its longest input run next, and what else is in
that run is a matter of cost: the inputs around it, sorted by length, are cut into runs so that all of them
together take the least time, and the run that holds it goes first. So sorted batches come by themselves,
nobody waits for more turns than there are requests before his, and no rule says how full a batch must be.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from engines.buckets import Bucket, Choice, Costs
from engines.lanes import Lanes

if TYPE_CHECKING:
    from engines.encoder_runner import Row

AROUND = (
    1  # so many times the most rows of a bucket are looked at, on each side of the input whose turn it is
)


class Entry(NamedTuple):
    """An input that waits. They are ordered by length, then by number."""

    length: int  # tokens
    number: int  # unique in a queue
    place: int  # in its request
    request: Request

    @property
    def row(self) -> Row:
        return self.request.rows[self.place]


@dataclass(eq=False, slots=True)
class Request:
    """One that was let in, until its last input is answered."""

    peer: int
    number: int
    priority: int
    arrived: float  # seconds, time.monotonic
    rows: Sequence[Row]  # its inputs
    waiting: list[Entry] = field(default_factory=list)  # by length; the queue's
    left: int = 0  # inputs without an answer
    began: bool = False  # one of them has been packed
    ended: bool = False  # nobody waits for the rest

    @property
    def key(self) -> tuple[int, int]:
        return self.peer, self.number


class Batch(NamedTuple):
    bucket: Bucket
    entries: list[Entry]  # a request's stand together


class Queue:
    def __init__(self, costs: Costs) -> None:
        self.costs = costs
        self.tokens = 0  # that wait
        self._turns: Lanes[Request] = Lanes()
        self._sorted: tuple[list[Entry], list[Entry]] = ([], [])  # interactive, batch
        self._count = 0

    def __len__(self) -> int:
        """Inputs that wait."""
        return sum(map(len, self._sorted))

    @property
    def requests(self) -> int:
        """Of which inputs wait."""
        return len(self._turns)

    @property
    def oldest(self) -> float:
        """When the first of these came. Raises ValueError when there is none."""
        return min(request.arrived for request in self._turns)

    def push(self, request: Request) -> None:
        """A new request, none of whose inputs is longer than the longest bucket."""
        request.waiting = sorted(
            Entry(len(row.ids), self._count + index, index, request) for index, row in enumerate(request.rows)
        )
        request.left = len(request.rows)
        self._count += request.left
        lane = self._lane(request)
        lane += request.waiting
        lane.sort()
        self.tokens += sum(entry.length for entry in request.waiting)
        self._turns.push(request)

    def remove(self, request: Request) -> None:
        """Forget a request; those that have no input waiting are not in the queue."""
        if request.waiting:
            self._lane(request)[:] = [entry for entry in self._lane(request) if entry.request is not request]
            self.tokens -= sum(entry.length for entry in request.waiting)
            request.waiting.clear()
            self._turns.remove(request)

    def pop(self) -> Batch:
        """Take out what runs next. Raises IndexError when nothing waits."""
        request = self._turns.pop()
        lane = self._lane(request)
        first, last, bucket = self._cut(lane, bisect_left(lane, request.waiting[-1]))
        taken = lane[first:last]
        del lane[first:last]
        taken += self._riders(self._other(request), bucket, bucket.rows - len(taken))
        for entry in taken:
            own = entry.request.waiting
            del own[bisect_left(own, entry)]
            if not own and entry.request is not request:
                self._turns.remove(entry.request)
        if request.waiting:
            self._turns.push(request)
        self.tokens -= sum(entry.length for entry in taken)
        return Batch(bucket, sorted(taken, key=lambda entry: entry.number))

    def _lane(self, request: Request) -> list[Entry]:
        return self._sorted[request.priority > 0]

    def _other(self, request: Request) -> list[Entry]:
        return self._sorted[request.priority <= 0]

    def _cut(self, lane: list[Entry], turn: int) -> tuple[int, int, Bucket]:
        """The run that holds lane[turn], as a range of the lane, and its bucket."""
        around = AROUND * self.costs.most_rows
        end = min(len(lane), turn + 1 + around)
        lengths = [entry.length for entry in reversed(lane[max(0, turn + 1 - around) : end])]
        for first, size, bucket in cut(lengths, self.costs):
            if first + size > end - 1 - turn:
                return end - first - size, end - first, bucket
        raise AssertionError("the runs hold every input")

    @staticmethod
    def _riders(lane: list[Entry], bucket: Bucket, room: int) -> list[Entry]:
        """The longest of the other lane that fit into rows which nobody needs."""
        last = bisect_left(lane, bucket.tokens + 1, key=lambda entry: entry.length)
        riders = lane[max(0, last - room) : last] if room else []
        del lane[last - len(riders) : last]
        return riders


def cut(lengths: Sequence[int], costs: Costs) -> list[tuple[int, int, Bucket]]:
    """Runs of adjacent inputs, as (first, inputs, bucket), that take the least time in all.

    lengths: in descending order, so that a run's first input decides how long its rows must be.
    """
    count = len(lengths)
    least = [0.0] * (count + 1)  # seconds from here to the end
    best: dict[int, Choice] = {}
    for first in range(count - 1, -1, -1):
        lowest = float("inf")
        for choice in costs.choices(lengths[first]):
            seconds = choice.seconds + least[min(first + choice.rows, count)]
            if seconds < lowest:
                lowest, best[first] = seconds, choice
            if first + choice.rows >= count:
                break
        least[first] = lowest
    runs, first = [], 0
    while first < count:
        choice = best[first]
        size = min(choice.rows, count - first)
        runs.append((first, size, choice.bucket))
        first += size
    return runs
