"""Real speech through a real server: the words of transformers with the same weights, at the right times."""

from __future__ import annotations

import io
import json
import re
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from openai import OpenAI

from export import sources
from export.prepare import prepare
from tests.audio.recordings import NAMES, folder, silence, speech
from tests.serving import Server

RATE = 16_000
SEGMENT_SLACK = 0.3  # seconds that a segment's border may be off
WORD_SLACK = 0.2  # and a word's, in the median; 0.5 at most

Samples = NDArray[np.float32]


def file_of(samples: Samples) -> tuple[str, bytes]:
    """A wav file, as the SDK takes it."""
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return "speech.wav", written.getvalue()


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower().replace("mr.", "mister").replace("-", " "))


def true_words(name: str) -> list[tuple[str, float, float]]:
    """(word, start, end) in seconds, as PocketSphinx aligned them."""
    told = json.loads((folder() / f"{name}.json").read_text())["w"]
    return [(one["t"], one["b"], one["b"] + one["d"]) for one in told if one["t"][0].isalpha()]


@pytest.fixture(scope="module", params=["fp32", "w8a8"])
def client(request: pytest.FixtureRequest) -> Iterator[OpenAI]:
    bundle: Path = request.getfixturevalue(f"whisper_{request.param}")
    with (
        Server([bundle], ("--served-model-name", "whisper", "--threads", "2")) as server,
        server.openai(max_retries=0) as client,
    ):
        yield client


def transcribed(client: OpenAI, samples: Samples, **fields: Any) -> Any:
    return client.audio.transcriptions.create(model="whisper", file=file_of(samples), **fields)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What transformers writes, greedily, in fp32."""
    import torch
    from tokenizers import Tokenizer
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

    checkpoint = tmp_path_factory.mktemp("whisper")
    prepare(sources.fetch("whisper-tiny.en").path, checkpoint)
    model = WhisperForConditionalGeneration.from_pretrained(checkpoint).eval()
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    extractor = WhisperFeatureExtractor(feature_size=80)
    texts = {}
    for name in NAMES:
        features = extractor(speech(name), sampling_rate=RATE, return_tensors="pt").input_features
        with torch.no_grad():
            [ids] = model.generate(features)
        texts[name] = tokenizer.decode(ids.tolist())
    return texts


def test_recordings_have_the_words_of_transformers(client: OpenAI, reference: dict[str, str]) -> None:
    found = {name: words_of(transcribed(client, speech(name)).text) for name in NAMES}
    wrong = [name for name in NAMES if found[name] != words_of(reference[name])]
    assert len(wrong) <= 1  # cut at its silence, a recording may be heard a little differently
    for name in wrong:
        assert len(set(found[name]) ^ set(words_of(reference[name]))) <= 2


@pytest.fixture(scope="module")
def minutes() -> tuple[Samples, list[tuple[str, float, float]]]:
    """Ten minutes of the recordings with silences between them, and when each is spoken."""
    parts: list[Samples] = []
    spoken: list[tuple[str, float, float]] = []
    at = 0.0
    for number in range(100):
        name, pause = NAMES[number % len(NAMES)], silence(0.7 + 0.9 * (number % 4))
        words = true_words(name)
        parts += [pause, speech(name)]
        at += len(pause) / RATE
        spoken.append((name, at + words[0][1], at + words[-1][2]))
        at += len(speech(name)) / RATE
    return np.concatenate(parts), spoken


def test_a_long_recording_has_its_sentences_at_their_times(
    client: OpenAI, minutes: tuple[Samples, list[tuple[str, float, float]]]
) -> None:
    samples, spoken = minutes
    answer = transcribed(client, samples, response_format="verbose_json")
    assert abs(answer.duration - len(samples) / RATE) < 0.05
    starts = np.array([segment.start for segment in answer.segments])
    ends = np.array([segment.end for segment in answer.segments])
    assert (np.diff(starts) >= 0).all()
    late = [float(np.abs(starts - begin).min()) for _, begin, _ in spoken]
    early = [float(np.abs(ends - end).min()) for _, _, end in spoken]
    assert np.mean(np.array(late) <= SEGMENT_SLACK) >= 0.9, late
    assert np.mean(np.array(early) <= SEGMENT_SLACK) >= 0.9, early


def test_words_are_where_they_were_spoken(client: OpenAI) -> None:
    for name in NAMES[:1] + NAMES[3:]:
        answer = transcribed(
            client, speech(name), response_format="verbose_json", timestamp_granularities=["word", "segment"]
        )
        found = [(words_of(word.word), word.start, word.end) for word in answer.words]
        starts = [start for _, start, _ in found]
        assert starts == sorted(starts)
        assert all(start <= end for _, start, end in found)
        first, last = answer.segments[0].start, answer.segments[-1].end
        assert first - 0.05 <= starts[0]
        assert found[-1][2] <= last + 0.05
        truth = {word: (begin, end) for word, begin, end in true_words(name)}
        off = [
            abs(start - truth[word[0]][0])
            for word, start, _ in found
            if len(word) == 1 and word[0] in truth and sum(word == one[0] for one in found) == 1
        ]
        assert len(off) > 4
        assert np.median(off) <= WORD_SLACK, off
        assert max(off) <= 0.5, off


@pytest.mark.parametrize("seconds", [0.5, 40])
def test_silence_has_no_words(client: OpenAI, seconds: float) -> None:
    assert transcribed(client, silence(seconds)).text == ""
