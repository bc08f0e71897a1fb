from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.audio import Transcription, TranscriptionVerbose, TranslationVerbose
from openai.types.audio.transcription_stream_event import TranscriptionStreamEvent
from pydantic import TypeAdapter

from basert.audio import formats
from basert.audio.segments import Segment, Transcript, Word


def segment(number: int, start: float, end: float, text: str) -> Segment:
    return Segment(number, 0, start, end, text, [50364, 7, 50464], 0.0, -0.25, 1.125, 0.01)


SPOKEN = Transcript(
    duration=3725.5,
    language="en",
    segments=[segment(0, 0.0, 2.5, " He was not"), segment(1, 3723.04, 3725.5, " an ill disposed man.")],
    words=[Word("He", 0.0, 0.4), Word("was", 0.4, 0.7)],
)


def wire(value: object) -> bytes:
    return msgspec.json.encode(value)


def test_json() -> None:
    parsed = Transcription.model_validate_json(wire(formats.plain(SPOKEN)), strict=True)
    assert parsed.text == "He was not an ill disposed man."
    assert (parsed.usage.type, parsed.usage.seconds) == ("duration", 3725.5)


def test_verbose_json_has_all_ten_fields_of_a_segment() -> None:
    body = wire(formats.verbose(SPOKEN))
    parsed = TranscriptionVerbose.model_validate_json(body, strict=True)
    assert (parsed.language, parsed.duration) == ("english", 3725.5)
    assert parsed.words is None
    assert [one.to_dict() for one in parsed.segments] == [msgspec.to_builtins(one) for one in SPOKEN.segments]
    assert len(parsed.segments[0].to_dict()) == 10
    raw = msgspec.json.decode(body)
    assert raw["task"] == "transcribe"
    assert "words" not in raw


@pytest.mark.parametrize(
    ("granularities", "there"),
    [
        ((), {"segments"}),
        (("segment",), {"segments"}),
        (("word",), {"words"}),
        (("word", "segment"), {"segments", "words"}),
    ],
)
def test_granularities(granularities: tuple[str, ...], there: set[str]) -> None:
    body = wire(formats.verbose(SPOKEN, granularities))
    parsed = TranscriptionVerbose.model_validate_json(body, strict=True)
    assert {"segments", "words"} & set(msgspec.json.decode(body)) == there
    if "words" in there:
        assert [(one.word, one.start, one.end) for one in parsed.words] == [
            ("He", 0.0, 0.4),
            ("was", 0.4, 0.7),
        ]


def test_a_translation() -> None:
    body = wire(formats.verbose(SPOKEN, task="translate"))
    assert msgspec.json.decode(body)["task"] == "translate"
    assert TranslationVerbose.model_validate_json(body, strict=True).text == SPOKEN.text


def test_events() -> None:
    adapter = TypeAdapter(TranscriptionStreamEvent)
    delta = adapter.validate_json(wire(formats.TextDelta(" He")), strict=True)
    assert (delta.type, delta.delta) == ("transcript.text.delta", " He")
    done = adapter.validate_json(wire(formats.TextDone("He.", formats.Tokens(3, 2, 5))), strict=True)
    assert (done.type, done.text, done.usage.total_tokens) == ("transcript.text.done", "He.", 5)
    assert "usage" not in msgspec.json.decode(wire(formats.TextDone("He.")))


def test_text() -> None:
    assert formats.text(SPOKEN) == "He was not an ill disposed man.\n"


def test_srt() -> None:
    assert formats.srt(SPOKEN) == (
        "1\n00:00:00,000 --> 00:00:02,500\nHe was not\n\n"
        "2\n01:02:03,040 --> 01:02:05,500\nan ill disposed man.\n\n"
    )


def test_vtt() -> None:
    assert formats.vtt(SPOKEN) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:02.500\nHe was not\n\n"
        "01:02:03.040 --> 01:02:05.500\nan ill disposed man.\n\n"
    )


def test_nothing_was_said() -> None:
    silent = Transcript(duration=2.0, language="en", segments=[])
    assert (formats.text(silent), formats.srt(silent), formats.vtt(silent)) == ("\n", "", "WEBVTT\n\n")
    assert TranscriptionVerbose.model_validate_json(wire(formats.verbose(silent)), strict=True).segments == []


CUE = re.compile(r"(\d\d+:\d\d:\d\d[.,]\d{3}) --> (\d\d+:\d\d:\d\d[.,]\d{3})\n([^\n]+)\n\n")


@given(
    st.lists(
        st.text(st.one_of(st.sampled_from("\n\r\u2028 -->&<"), st.characters(codec="utf-8"))), max_size=4
    )
)
def test_no_text_breaks_a_cue(texts: list[str]) -> None:
    transcript = Transcript(9.0, "en", [segment(at, at, at + 0.9996, one) for at, one in enumerate(texts)])
    cues = [" ".join(one.split()).replace("-->", "->") for one in texts if one.strip()]
    rest = formats.vtt(transcript).removeprefix("WEBVTT\n\n")
    found = [one[2].replace("&lt;", "<").replace("&amp;", "&") for one in CUE.findall(rest)]
    assert found == cues
    assert CUE.sub("", rest) == ""
    assert [one[2] for one in CUE.findall(formats.srt(transcript))] == cues
