"""The discipline of speech models: transcripts of recordings, and what is noted of them. Knows no server.

Every speed has beside it how many words were wrong. A trial refuses to give numbers where there are no times
that were asked for, or other words than were said.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from basert.bench.load import crowd
from basert.bench.peers.processes import MemoryPeak
from basert.bench.peers.trial import Discipline, Subject, Trial, latency
from basert.bench.recordings import Recording, Recordings
from basert.bench.transcribing import Asked, check, errors, request, run
from basert.client import Client, RequestFailed

CLIENTS = 8
LONG = 120.0  # seconds
WORST = 0.5  # of the words: who gets more of them wrong has heard something else


@dataclass(frozen=True)
class Hearer(Subject):
    recordings: Recordings


@dataclass(frozen=True)
class Transcribe(Trial[Hearer]):
    """A closed loop: each of `clients` sends its next recording when its last one was answered."""

    clients: int
    requests: int
    seconds: float = 0.0  # of a long recording; 0: single pieces
    asked: Asked = "text"

    async def measure(self, subject: Hearer) -> dict[str, float]:
        recordings = subject.recordings.drawn(self.name, self.requests, self.seconds)
        bodies = [request(subject.model, one, self.asked) for one in recordings]
        with MemoryPeak(subject.pid) as peak:
            outcomes, seconds = await crowd(subject.client, bodies, self.clients, run)
        check(outcomes, recordings, self.asked)
        if (wrong := errors(outcomes, recordings)) > WORST:
            raise RequestFailed(f"it wrote something else than was said: {wrong:.0%} of the words are wrong.")
        sound = sum(one.seconds for one in recordings)
        return {
            "sound_per_second": sound / seconds,
            "real_time_factor": seconds / sound,
            **latency(outcomes),
            "word_errors": 100 * wrong,
            "memory_mib": peak.mib,
        }


@dataclass(frozen=True)
class Transcribing(Discipline[Hearer]):
    recordings: Recordings

    method = (
        "One client, the same for all: /v1/audio/transcriptions, WAV files of 16 kHz, language and"
        " temperature 0 said, answers in one piece, connections kept.",
        "All servers decode greedily (one beam), none makes a window's text the prompt of the next, and each"
        " tells speech from silence with Silero VAD.",
    )
    keep_alive = True

    def subject(self, client: Client, model: str, pid: int) -> Hearer:
        return Hearer(client, model, pid, self.recordings)

    async def first_answer(self, subject: Hearer) -> float:
        await _ask(subject, self.recordings.drawn("first", 1), 1)
        return time.perf_counter()

    async def warm_up(self, subject: Hearer, streams: int) -> None:
        """Pieces, alone and many together, and a long recording; with times."""
        await _ask(subject, self.recordings.drawn("alone", 2), 1)
        await _ask(subject, self.recordings.drawn("together", 2 * CLIENTS), CLIENTS)
        await _ask(subject, self.recordings.drawn("long", 1, LONG / 2), 1, "segments")


async def _ask(subject: Hearer, recordings: Sequence[Recording], clients: int, asked: Asked = "text") -> None:
    bodies = [request(subject.model, one, asked) for one in recordings]
    outcomes, _ = await crowd(subject.client, bodies, clients, run)
    check(outcomes, recordings, asked)


def _trial(name: str, about: str, clients: int, requests: int, seconds: float, asked: Asked) -> Transcribe:
    who = "one client" if clients == 1 else f"{clients} clients"
    return Transcribe(name, f"{who}, {about}", "sound_per_second", clients, requests, seconds, asked)


_SINGLE = "recordings of one sentence"
_MANY = f"recordings of {LONG / 60:g} minutes"
_TIMED = f"{_MANY}, segments with their times"

TRIALS: dict[str, Trial[Hearer]] = {
    trial.name: trial
    for trial in (
        _trial("1xshort", _SINGLE, 1, 15, 0.0, "text"),
        _trial(f"{CLIENTS}xshort", _SINGLE, CLIENTS, 40, 0.0, "text"),
        _trial("1xlong", _MANY, 1, 2, LONG, "text"),
        _trial(f"{CLIENTS}xlong", _MANY, CLIENTS, CLIENTS, LONG, "text"),
        _trial("1xsegments", _TIMED, 1, 2, LONG, "segments"),
        _trial(f"{CLIENTS}xsegments", _TIMED, CLIENTS, CLIENTS, LONG, "segments"),
        _trial(f"{CLIENTS}xwords", f"{_MANY}, words with their times", CLIENTS, CLIENTS, LONG, "words"),
    )
}
