"""The official clients, unchanged, against a real server of speech models; and what only that shows."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI

from tests.http.hearing import long, short
from tests.javascript import run_node_tests
from tests.serving import Server
from tests.tiny import write_testing_bundle
from tests.tiny_speech import write_testing_speech

MODEL = "tiny-speech"
TEXTS = [
    "Hello world. Boxing wizards jump.",
    "Grüße, world 🌍!",
    "The system jumps. Hello, assistant. Hello, user.",
]
PATH = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`tiny-speech`, `english`, which knows no other language, and the chat model `tiny`."""
    folder = tmp_path_factory.mktemp("bundles")
    english = write_testing_speech(folder, name="english", languages=())
    with Server([write_testing_speech(folder), english, write_testing_bundle(folder)]) as running:
        yield running
        assert "Traceback" not in running.log()


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with server.openai(max_retries=0) as client:
        yield client


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        yield client


def test_json(client: OpenAI) -> None:
    answer = client.audio.transcriptions.create(model=MODEL, file=("speech.wav", short()))
    assert answer.text in TEXTS
    assert answer.usage is not None
    assert (answer.usage.type, answer.usage.seconds) == ("duration", 7.1)
    scored = client.audio.transcriptions.create(
        model=MODEL, file=("speech.wav", short()), include=["logprobs"], response_format="json"
    )
    assert scored.logprobs is not None
    raw = bytes(int(byte) for one in scored.logprobs for byte in one.bytes or [])
    assert raw.decode().strip() == answer.text


@pytest.mark.parametrize("form", ["text", "srt", "vtt"])
def test_texts(client: OpenAI, form: str) -> None:
    text = client.audio.transcriptions.create(
        model=MODEL, file=("speech.wav", short()), response_format=form, language="en"
    )
    assert isinstance(text, str)
    beginnings = {"text": ("Hello", "Grüße", "The system"), "srt": "1\n00:00:0", "vtt": "WEBVTT\n\n00:00:0"}
    assert text.startswith(beginnings[form])


def test_verbose_json(client: OpenAI) -> None:
    answer = client.audio.transcriptions.create(
        model=MODEL,
        file=("speech.wav", long()),
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        chunking_strategy={"type": "server_vad", "threshold": 0.4},
    )
    assert answer.segments
    assert answer.words
    assert answer.language in ("english", "german", "french")
    assert "".join(one.text for one in answer.segments).strip() == answer.text
    assert [one.id for one in answer.segments] == list(range(len(answer.segments)))
    times = [(one.start, one.end) for one in answer.segments]
    assert times == sorted(times)
    assert " ".join(one.word for one in answer.words) == answer.text
    assert all(0 <= one.start <= one.end <= answer.duration for one in answer.words)
    assert all(one.temperature == 0 and one.avg_logprob > -0.01 for one in answer.segments)


def test_streams(client: OpenAI) -> None:
    plain = client.audio.transcriptions.create(model=MODEL, file=("speech.wav", long()))
    with client.audio.transcriptions.create(model=MODEL, file=("speech.wav", long()), stream=True) as stream:
        *deltas, done = list(stream)
    assert [event.type for event in deltas] == ["transcript.text.delta"] * 3
    assert done.type == "transcript.text.done"
    assert "".join(event.delta for event in deltas) == done.text == plain.text
    assert done.usage is not None


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_translations(client: OpenAI) -> None:
    answer = client.audio.translations.create(model=MODEL, file=("speech.wav", short()))
    assert answer.text in TEXTS
    verbose = client.audio.translations.create(
        model=MODEL, file=("speech.wav", short()), response_format="verbose_json"
    )
    assert verbose.language == "english"
    assert verbose.segments
    subtitles = client.audio.translations.create(
        model=MODEL, file=("speech.wav", short()), response_format="vtt"
    )
    assert subtitles.startswith("WEBVTT")


def test_one_window_after_another(client: OpenAI) -> None:
    extra = {"condition_on_previous_text": True, "seed": 3, "hotwords": "wizards"}
    answer = client.audio.transcriptions.create(
        model="english", file=("speech.wav", long()), prompt="hello", temperature=0.0, extra_body=extra
    )
    rest = answer.text
    for _ in range(3):
        rest = next(rest.removeprefix(text).strip() for text in TEXTS if rest.startswith(text))
    assert rest == ""


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"file": ("speech.wav", b"no sound")}, openai.BadRequestError),
        ({"file": ("speech.wav", b"")}, openai.BadRequestError),
        ({"file": ("speech.wav", b"\0" * (26 << 20))}, openai.APIStatusError),
        ({"language": "xx"}, openai.BadRequestError),
        ({"model": "english", "language": "de"}, openai.BadRequestError),
        ({"model": "tiny"}, openai.BadRequestError),
        ({"model": "nothing"}, openai.NotFoundError),
        ({"timestamp_granularities": ["word"]}, openai.BadRequestError),
    ],
)
def test_refusals(client: OpenAI, change: dict[str, object], error: type[openai.APIStatusError]) -> None:
    asked = {"model": MODEL, "file": ("speech.wav", short())} | change
    with pytest.raises(error) as raised:
        client.audio.transcriptions.create(**asked)
    assert raised.value.body["message"]
    assert error is not openai.APIStatusError or raised.value.status_code == 413


def test_it_does_not_chat(client: OpenAI) -> None:
    with pytest.raises(
        openai.BadRequestError, match="transcribes speech; ask for one that generates text: tiny"
    ):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello"}])


async def test_many_at_once_some_of_them_damaged(http: httpx.AsyncClient) -> None:
    dice = random.Random(7)

    async def ask(number: int) -> httpx.Response:
        data = bytearray(short())
        if number % 3:
            for _ in range(50):
                data[dice.randrange(100)] = dice.randrange(256)
        return await http.post(PATH, data={"model": MODEL}, files={"file": bytes(data)})

    answers = await asyncio.gather(*map(ask, range(30)))
    assert {answer.status_code for answer in answers[::3]} == {200}
    assert {answer.status_code for answer in answers} == {200, 400}


async def test_figures(http: httpx.AsyncClient) -> None:
    """A window whose language was asked for is not heard again."""

    async def figure(name: str) -> float:
        figures = (await http.get("/metrics")).text
        of = f'model="{MODEL}",replica="0"' if name.startswith("engine") else f'model="{MODEL}"'
        sample = f"basert_{name}_total{{{of}}} "
        return next(
            float(line.removeprefix(sample)) for line in figures.splitlines() if line.startswith(sample)
        )

    names = ("audio_windows", "engine_windows_heard", "engine_windows_reused", "audio_seconds")
    before = [await figure(name) for name in names]
    asked = await http.post(PATH, data={"model": MODEL, "prompt": "hello"}, files={"file": short()})
    assert asked.status_code == 200
    grown = [await figure(name) - old for name, old in zip(names, before, strict=True)]
    assert grown[0] == 1
    assert grown[1] + grown[2] == 2
    assert grown[1] <= 1
    assert grown[3] == pytest.approx(7.1)


def test_openai_node(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "speech.wav"
    file.write_bytes(long())
    run_node_tests("speech.test.mjs", 3, {"BASERT_URL": server.url, "SPEECH": str(file)})


async def test_a_client_that_leaves_frees_the_engine(tmp_path: Path) -> None:
    """Else the second request would wait for the steps of eight windows."""
    bundle = write_testing_speech(tmp_path, step_seconds=0.1, slots=1)
    with Server([bundle]) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            fields = {"model": MODEL, "language": "en"}
            left = asyncio.create_task(http.post(PATH, data=fields, files={"file": long(4)}))
            while (
                'basert_slots_used{model="tiny-speech",replica="0"} 1.0'
                not in (await http.get("/metrics")).text
            ):
                assert not left.done()
            left.cancel()
            one = await http.post(PATH, data=fields, files={"file": short()})
            assert one.json()["text"] in TEXTS
            figures = (await http.get("/metrics")).text
            assert 'basert_requests_total{key="",model="tiny-speech",outcome="cancelled"} 1.0' in figures


async def test_an_engine_that_dies(tmp_path: Path) -> None:
    """The window that it was at is asked for again, whatever was said of it; the answer is whole."""
    bundle = write_testing_speech(tmp_path, listen_seconds=0.2, step_seconds=0.05)
    with Server([bundle], ("--restart-backoff", "0.01")) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            fields = {"model": MODEL, "language": "en"}
            answer = asyncio.create_task(http.post(PATH, data=fields, files={"file": short()}))
            while (
                'basert_slots_used{model="tiny-speech",replica="0"} 1.0'
                not in (await http.get("/metrics")).text
            ):
                assert not answer.done()
            engine = next(one for one in server.processes() if "engines" in one.cmdline())
            engine.send_signal(signal.SIGKILL)
            assert (await answer).json()["text"] in TEXTS
