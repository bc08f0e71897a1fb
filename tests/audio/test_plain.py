"""WAV files that need no decoder: the same samples as from ffmpeg, and none where there is any doubt."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basert.audio import decode as decoding
from basert.audio.decode import Limits, decode
from basert.audio.plain import pcm
from basert.errors import InvalidRequest
from tests.audio.recordings import folder, speech
from tests.http.hearing import wav

SOME = np.arange(-500, 500, dtype="<i2")
FORMAT = (1, 1, 16_000, 32_000, 2, 16)


def chunk(name: bytes, data: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(data) if size is None else size) + data + b"\0" * (len(data) % 2)


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def form(told: tuple[int, ...] = FORMAT, more: bytes = b"") -> bytes:
    return chunk(b"fmt ", struct.pack("<HHIIHH", *told) + more)


DATA = chunk(b"data", SOME.tobytes())
AS_THEY_ARE = [
    riff(form(), DATA),
    riff(form(more=b"\0\0"), DATA),  # WAVEFORMATEX
    riff(
        chunk(b"LIST", b"INFOISFT\x05\0\0\0Lavf\0"),
        form(),
        chunk(b"fact", b"1234"),
        DATA,
        chunk(b"id3 ", b"x"),
    ),
    riff(form(), chunk(b"data", SOME.tobytes(), size=10**9)),  # it broke off
    riff(form(), DATA[:-3]),
]


@pytest.fixture
def lone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started."""

    async def run(*_: object) -> int:
        raise AssertionError("a process was started")

    monkeypatch.setattr(decoding, "_run", run)


async def by_ffmpeg(data: bytes, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    with monkeypatch.context() as patched:
        patched.setattr(decoding, "pcm", lambda *_: None)
        return await decode(data)


@pytest.mark.parametrize("data", AS_THEY_ARE)
async def test_samples_are_those_of_ffmpeg(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = await by_ffmpeg(data, monkeypatch)
    np.testing.assert_array_equal(await decode(data), wanted)


@pytest.mark.parametrize("data", AS_THEY_ARE)
async def test_no_process_is_started(data: bytes, lone: None) -> None:
    samples = await decode(data)
    np.testing.assert_array_equal(samples * 32768, SOME[: len(samples)])
    assert len(samples) >= len(SOME) - 2


async def test_a_file_on_disk(lone: None) -> None:
    [first, *_] = sorted(folder().glob("*.wav"))
    np.testing.assert_array_equal(await decode(first), speech())


@pytest.mark.parametrize(
    "data",
    [
        riff(form((1, 2, 16_000, 64_000, 4, 16)), DATA),
        riff(form((1, 1, 8_000, 16_000, 2, 16)), DATA),
        riff(form((1, 1, 16_000, 16_000, 1, 8)), DATA),
        riff(form((3, 1, 16_000, 64_000, 4, 32)), DATA),
        riff(DATA, form()),
        riff(form()),
        riff(form(), chunk(b"data", b"")),
        riff(form(), chunk(b"data", SOME.tobytes(), size=0)),  # written on the fly
        riff(form(), chunk(b"data", SOME.tobytes(), size=0xFFFFFFFF)),
        riff(*[chunk(b"junk", b"")] * 50, form(), DATA),
        b"RIFX" + riff(form(), DATA)[4:],
        b"",
    ],
)
def test_whatever_else_is_left_to_ffmpeg(data: bytes) -> None:
    assert read(data) is None


async def test_what_is_too_long_is_refused_as_ever() -> None:
    with pytest.raises(InvalidRequest, match=r"longer than the 0\.5 seconds"):
        await decode(wav(speech()), Limits(most_seconds=0.5))


@given(st.data())
def test_no_file_breaks_it(data: st.DataObject) -> None:
    raw = bytearray(riff(form(), DATA))
    for _ in range(data.draw(st.integers(0, 8))):
        raw[data.draw(st.integers(0, 60))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(0, len(raw))) :]
    samples = read(bytes(raw))
    assert samples is None or 0 < len(samples) <= len(SOME) + 22


def read(data: bytes) -> np.ndarray | None:
    given = os.memfd_create("test")
    try:
        os.write(given, data)
        os.lseek(given, 0, os.SEEK_SET)
        return pcm(given, 3600)
    finally:
        os.close(given)
