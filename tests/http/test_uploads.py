"""Forms with files: what is malformed, too large or too slow is answered for what it is."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from falcon.testing import ASGIConductor
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audio.recordings import silence, speech
from tests.http.fakes import FakeModel, FakeModels, fake_app
from tests.http.hearing import BOUNDARY, PATH, ask, form, post, refused, short, wav

KIND = f"multipart/form-data; boundary={BOUNDARY}"


@pytest.fixture(autouse=True)
def whisper(models: FakeModels) -> FakeModel:
    return models.add_speech()


@pytest.fixture
async def strict(models: FakeModels) -> AsyncIterator[ASGIConductor]:
    app = fake_app(models, max_audio_bytes=100_000, max_audio_seconds=2.0, body_timeout=0.2)
    async with ASGIConductor(app) as conductor:
        yield conductor


async def complaint(client: ASGIConductor, body: bytes, kind: str = KIND, status: int = 400) -> str:
    result = await client.simulate_post(PATH, body=body, headers={"Content-Type": kind})
    assert result.status_code == status, result.text
    message: str = result.json["error"]["message"]
    return message


async def test_another_kind_of_body(client: ASGIConductor) -> None:
    said = await complaint(client, b'{"model": "whisper"}', "application/json")
    assert said == ("The body is sent as 'application/json'; send it with Content-Type: multipart/form-data.")


@pytest.mark.parametrize(
    "kind",
    ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'x' * 71}"],
)
async def test_no_boundary(client: ASGIConductor, kind: str) -> None:
    assert (await complaint(client, short(), kind)).startswith("The form cannot be read (")


SPOKEN = wav(speech()[: 16_000 * 19 // 10])  # 1.9 s
BODY = form([("model", "whisper")], b"RIFF")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form",
        BODY[:-8],
        BODY[: len(BODY) // 2],
        BODY.replace(b"\r\n\r\n", b"\r\n"),
        BODY.replace(b'name="model"', b"model"),
        BODY.replace(b'"model"', b'"\xff\xfe"'),
        BODY.replace(b"whisper", b"\xff\xfe"),
        BODY.replace(b'filename="speech.wav"', b"filename*=utf-9''%ff"),
        BODY.replace(b"Content-Type: audio/wav", b"Content-Transfer-Encoding: base64"),
    ],
)
async def test_broken_forms(client: ASGIConductor, body: bytes) -> None:
    assert await complaint(client, body)


@pytest.mark.parametrize(
    ("fields", "file", "param"),
    [
        ([("model", "whisper")], None, "file"),
        ([("model", "whisper"), ("file", "speech.wav")], None, "file"),
        ([("language", "en")], b"RIFF", "model"),
        ([("model", "whisper"), ("model", "tiny")], b"RIFF", "model"),
        ([("model", "whisper")], b"", "file"),
        ([("model", "whisper")], b"RIFF", "file"),
    ],
)
async def test_what_is_missing_or_too_much(
    client: ASGIConductor, fields: list[tuple[str, str]], file: bytes | None, param: str
) -> None:
    result = await client.simulate_post(PATH, body=form(fields, file), headers={"Content-Type": KIND})
    assert result.status_code == 400
    assert result.json["error"]["param"] == param


async def test_two_files(client: ASGIConductor) -> None:
    body = form([("model", "whisper")], short())
    twice = body.removesuffix(f"--{BOUNDARY}--\r\n".encode()) + form([], short())
    assert "more than one 'file'" in await complaint(client, twice)


async def test_the_order_of_fields_does_not_matter(client: ASGIConductor, whisper: FakeModel) -> None:
    body = form([], short()).removesuffix(f"--{BOUNDARY}--\r\n".encode())
    body += form([("model", "whisper"), ("language", "en")], None)
    result = await client.simulate_post(PATH, body=body, headers={"Content-Type": KIND})
    assert result.json["text"] == "Hello world. Boxing wizards jump."


async def test_limits(strict: ASGIConductor, whisper: FakeModel) -> None:
    await ask(strict, file=wav(silence(1.9)))
    error = await refused(strict, file=wav(silence(2.1)))
    assert error["message"] == "The sound is longer than the 2 seconds that are allowed; split it."
    error = await refused(strict, file=wav(silence(4)), status=413)
    assert (error["code"], error["param"]) == ("payload_too_large", "file")
    error = await refused(strict, status=413, prompt="a" * 1_050_000)
    assert "100000 bytes" in error["message"]


async def test_other_fields_have_a_limit_of_their_own(strict: ASGIConductor) -> None:
    fields = [(f"field{n}", "a" * 300_000) for n in range(4)]
    body = form(fields, b"RIFF")
    result = await strict.simulate_post(PATH, body=body, headers={"Content-Type": KIND})
    assert result.status_code == 413


async def test_a_file_of_unknown_kind_is_told_by_its_content(client: ASGIConductor) -> None:
    result = await post(client, language="en")
    named = form([("model", "whisper"), ("language", "en")], short(), "speech.exe")
    other = await client.simulate_post(PATH, body=named, headers={"Content-Type": KIND})
    assert other.json == result.json


async def test_a_hundred_damaged_files_beside_good_ones(client: ASGIConductor, whisper: FakeModel) -> None:
    """Each has its answer, a transcript or a sentence; and those that ask meanwhile have theirs."""
    dice = random.Random(1)

    async def damaged(number: int) -> int:
        data = bytearray(short())
        for _ in range(dice.choice([1, 20, 400])):
            data[dice.randrange(60 if number % 2 else len(data))] = dice.randrange(256)
        result = await post(client, file=bytes(data[: dice.randrange(len(data))]), language="en")
        assert result.status_code in (200, 400), result.text
        assert result.status_code == 200 or result.json["error"]["param"] == "file"
        return result.status_code

    async def good() -> None:
        assert (await ask(client, language="en"))["text"] == "Hello world. Boxing wizards jump."

    bad = [damaged(number) for number in range(100)]
    statuses, *_ = await asyncio.gather(asyncio.gather(*bad), *(good() for _ in range(5)))
    assert set(statuses) == {200, 400}


async def test_only_so_much_sound_is_held_at_once(strict: ASGIConductor, whisper: FakeModel) -> None:
    """Four times the longest recording; the others wait, and have their turn."""
    gate = whisper.engine.gate = asyncio.Event()
    asked = [asyncio.create_task(ask(strict, language="en", vad_filter="0", file=SPOKEN)) for _ in range(9)]
    while whisper.engine.open < 4:
        await asyncio.wait(asked, timeout=0.05)
    gate.set()
    assert len(await asyncio.gather(*asked)) == 9
    assert whisper.engine.most_open == 4


@settings(max_examples=150, deadline=None)
@given(
    cuts=st.lists(
        st.tuples(st.integers(0, len(BODY)), st.integers(0, 12), st.binary(max_size=12)), max_size=5
    )
)
def test_mutated_forms_have_answers(cuts: list[tuple[int, int, bytes]]) -> None:
    body = BODY
    for at, length, instead in cuts:
        body = body[:at] + instead + body[at + length :]

    async def answered() -> int:
        with tempfile.TemporaryDirectory() as folder:
            models = FakeModels(Path(folder))
            models.add_speech()
            async with ASGIConductor(fake_app(models)) as client:
                result = await client.simulate_post(PATH, body=body, headers={"Content-Type": KIND})
                assert result.json["error"]["message"]
                return result.status_code

    assert asyncio.run(answered()) in (400, 404)
