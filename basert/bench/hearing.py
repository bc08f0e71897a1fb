"""What can be measured of a speech model: seconds of sound per second by kind of recording and clients."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from basert.bench.cells import Cell
from basert.bench.engine import Hearing
from basert.bench.load import Outcome, crowd
from basert.bench.recordings import Recordings
from basert.bench.results import Listening, Percentiles, Report, Spread, Transcripts
from basert.bench.transcribing import Asked, errors, request, run
from basert.client import Client, RequestFailed


@dataclass(frozen=True)
class Sounds:
    """What is asked of a speech model."""

    client: Client
    model: str
    recordings: Recordings


@dataclass(frozen=True)
class Heard:
    """One measurement of a cell."""

    outcomes: list[Outcome]
    seconds: float  # from the first sent to the last answered
    sound: float  # seconds of the recordings
    word_errors: float  # by the words that were said
    engine: Hearing | None  # what it did meanwhile


class HearCell(Cell[Heard, Sounds]):
    """`clients`, each sending its next recording as soon as the last was answered; answers are streamed."""

    def __init__(self, seconds: float, asked: Asked, clients: int, requests: int) -> None:
        """seconds: of a long recording; 0: single pieces. requests: of all clients together."""
        super().__init__()
        self.seconds, self.asked, self.clients, self.requests = seconds, asked, clients, requests
        self._rounds = itertools.count()  # no sound is sent twice

    async def measure(self, workload: Sounds) -> Heard:
        key = f"{self.seconds} {self.asked} {self.clients} {next(self._rounds)}"
        recordings = workload.recordings.drawn(key, self.requests, self.seconds)
        bodies = [request(workload.model, one, self.asked, stream=True) for one in recordings]
        before = await Hearing.read(workload.client, workload.model)
        outcomes, seconds = await crowd(workload.client, bodies, self.clients, run)
        after = await Hearing.read(workload.client, workload.model)
        if all(one.error for one in outcomes):
            raise RequestFailed(outcomes[0].error or "")
        answered = zip(outcomes, recordings, strict=True)
        sound = sum(recording.seconds for outcome, recording in answered if not outcome.error)
        engine = after.less(before) if before and after else None
        return Heard(outcomes, seconds, sound, errors(outcomes, recordings), engine)

    def report(self, report: Report) -> None:
        everything = [outcome for sample in self.samples for outcome in sample.outcomes]
        answered = [outcome for outcome in everything if not outcome.error]
        rates = [sample.word_errors for sample in self.samples]
        report.transcripts.append(
            Transcripts(
                seconds=self.seconds,
                asked=self.asked,
                concurrency=self.clients,
                requests=len(answered),
                errors=Counter(outcome.error for outcome in everything if outcome.error),
                sound_per_second=Spread.of([sample.sound / sample.seconds for sample in self.samples]),
                first_segment=Percentiles.of_seconds([one.arrivals[0] - one.sent for one in answered]),
                whole_request=Percentiles.of_seconds([one.arrivals[-1] - one.sent for one in answered]),
                word_error_rate=sum(rates) / len(rates),
                engine=self._engine(),
            )
        )

    def _engine(self) -> Listening | None:
        """All samples together."""
        known = [sample.engine for sample in self.samples if sample.engine is not None]
        if not known:
            return None
        whole = known[0]
        for one in known[1:]:
            whole = whole.plus(one)
        return Listening(
            windows=int(whole.windows_heard),
            windows_reused=int(whole.windows_reused),
            listen_seconds=whole.listen_seconds,
            steps=int(whole.decode_steps + whole.prefill_steps),
            rows=whole.batch_size_sum / max(1, whole.decode_steps),
            decode_seconds=whole.run_seconds - whole.listen_seconds,
            outside_seconds=whole.step_seconds - whole.run_seconds,
        )


def cells_of(
    asked: Sequence[Asked], concurrencies: Sequence[int], requests: int, pieces: int, seconds: float
) -> list[HearCell]:
    """Every piece `requests` times for each client, and as many long recordings, with times and without."""
    kinds: list[tuple[float, Asked]] = [(0.0, "text"), *((seconds, one) for one in asked)]
    return [
        HearCell(long, one, clients, clients * requests * (1 if long else pieces))
        for (long, one), clients in itertools.product(kinds, concurrencies)
    ]
