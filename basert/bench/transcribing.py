"""One request for a transcript and its clock, and what the transcript got wrong. Knows no server."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from contextlib import aclosing
from itertools import pairwise
from typing import Any, Literal

from basert.bench.load import Outcome
from basert.bench.recordings import Recording
from basert.bench.word_errors import word_error_rate
from basert.client import Client, RequestFailed, Transcript

PATH = "/v1/audio/transcriptions"
Asked = Literal["text", "segments", "words"]
_VERBOSE = ("response_format", "verbose_json")
FIELDS: dict[Asked, list[tuple[str, str]]] = {
    "text": [("response_format", "json")],
    "segments": [_VERBOSE],
    "words": [_VERBOSE, *(("timestamp_granularities[]", kind) for kind in ("word", "segment"))],
}
SLACK = 1.0  # seconds that a time may lie behind the recording's end


def request(model: str, recording: Recording, asked: Asked, *, stream: bool = False) -> dict[str, Any]:
    """A body for `run`: greedy, the answer in one piece unless it is to stream."""
    return {
        "sound": recording.wav,
        "fields": [("model", model), ("language", "en"), ("temperature", "0"), *FIELDS[asked]],
        "stream": stream,
    }


async def run(client: Client, body: dict[str, Any], outcome: Outcome) -> None:
    """As load.run: never raises for what the server does. Arrivals: segments, if streamed, and the end."""
    sound = io.BytesIO(body["sound"])
    raw = b""
    events = client.transcribe(PATH, sound, "speech.wav", body["fields"], stream=body["stream"])
    try:
        async with aclosing(events):
            async for event in events:
                outcome.arrivals.append(time.perf_counter())
                outcome.began.set()
                raw = event.raw
        outcome.transcript = Transcript.read(raw)
    except RequestFailed as error:
        outcome.error = error.message
    finally:
        outcome.began.set()


def check(outcomes: Sequence[Outcome], recordings: Sequence[Recording], asked: Asked) -> None:
    """Raises RequestFailed unless every request got a transcript, with the times that it asked for."""
    for one, recording in zip(outcomes, recordings, strict=True):
        if one.transcript is None:
            raise RequestFailed(one.error or "it answered no transcript.")
        if asked != "text":
            _check_times(one.transcript, recording, asked)


def errors(outcomes: Sequence[Outcome], recordings: Sequence[Recording]) -> float:
    """The word error rate of those that were answered."""
    pairs = [
        (recording.words, one.transcript.text)
        for one, recording in zip(outcomes, recordings, strict=True)
        if one.transcript is not None
    ]
    return word_error_rate(*zip(*pairs, strict=True)) if pairs else 0.0


def _check_times(transcript: Transcript, recording: Recording, asked: Asked) -> None:
    spans = [(one.start, one.end) for one in transcript.segments]
    if not spans or (asked == "words" and not _has_words(transcript)):
        raise RequestFailed(f"it answered no {asked} with times.")
    if any(end < start for start, end in spans) or any(a > b for (a, _), (b, _) in pairwise(spans)):
        raise RequestFailed("its segments are in no order.")
    if spans[-1][1] > recording.seconds + SLACK:
        raise RequestFailed(f"a segment ends at {spans[-1][1]:g} s of {recording.seconds:g}.")


def _has_words(transcript: Transcript) -> bool:
    return bool(transcript.words) or any(segment.words for segment in transcript.segments)
