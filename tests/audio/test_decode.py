from __future__ import annotations

import asyncio
import os
import random
import wave
from pathlib import Path

import numpy as np
import psutil
import pytest

from basert.audio.decode import Limits, decode
from basert.errors import InvalidRequest, PayloadTooLarge
from tests.audio.recordings import NAMES, folder, speech
from tests.audio.sounds import sine, written

KINDS = [
    ("wav", "pcm_s16le", 44_100, "stereo"),
    ("wav", "pcm_u8", 8_000, "mono"),
    ("wav", "pcm_s24le", 96_000, "5.1"),
    ("wav", "pcm_f32le", 22_050, "mono"),
    ("aiff", "pcm_s16be", 11_025, "mono"),
    ("flac", "flac", 48_000, "stereo"),
    ("mp3", "libmp3lame", 44_100, "stereo"),
    ("mp3", "libmp3lame", 16_000, "mono"),
    ("adts", "aac", 44_100, "stereo"),
    ("ipod", "aac", 44_100, "stereo"),  # .m4a
    ("ogg", "libopus", 48_000, "mono"),
    ("webm", "libopus", 48_000, "stereo"),
]
FILMS = [("mp4", "aac", "mpeg4"), ("webm", "libopus", "libvpx"), ("matroska", "ac3", "mpeg4")]


@pytest.mark.parametrize(("container", "codec", "rate", "layout"), KINDS)
async def test_any_kind_of_file_gives_the_same_sound(
    container: str, codec: str, rate: int, layout: str
) -> None:
    samples = await decode(written(sine(), container, codec, rate, layout))
    assert_sine(samples)


@pytest.mark.parametrize(("container", "codec", "picture"), FILMS)
async def test_the_sound_of_a_film(container: str, codec: str, picture: str) -> None:
    assert_sine(await decode(written(sine(), container, codec, picture=picture)))


def assert_sine(samples: np.ndarray) -> None:
    """Two seconds of 440 Hz and next to nothing else; codecs may add some silence."""
    assert samples.dtype == np.float32
    assert 32_000 <= len(samples) < 34_500
    spectrum = np.abs(np.fft.rfft(samples[4_000:28_000] * np.hanning(24_000))) ** 2
    assert spectrum[650:671].sum() > 0.99 * spectrum.sum()  # 440 Hz is at 660
    assert np.abs(samples).max() > 0.1


async def test_what_is_16_khz_mono_already_stays_as_it_is(tmp_path: Path) -> None:
    recording = folder() / f"{NAMES[0]}.wav"
    np.testing.assert_array_equal(await decode(recording), speech())
    np.testing.assert_array_equal(await decode(recording.read_bytes()), speech())


async def test_speech_survives_a_codec() -> None:
    decoded = await decode(written(speech(), "ogg", "libopus"))
    kept = decoded[: len(speech())]
    assert np.corrcoef(kept, speech()[: len(kept)])[0, 1] > 0.98


async def test_a_file_that_breaks_off_gives_what_is_there() -> None:
    whole = written(speech(), "mp3", "libmp3lame")
    samples = await decode(whole[: len(whole) // 2])
    assert 0.4 * len(speech()) < len(samples) < 0.6 * len(speech())


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("text", [PLAYLIST, "ffconcat version 1.0\nfile '{}'\n", "<SMIL>{}", "{}"])
async def test_a_file_cannot_name_another_one(text: str) -> None:
    other = folder() / f"{NAMES[0]}.wav"
    with pytest.raises(InvalidRequest, match="could not be decoded as sound; send WAV"):
        await decode(text.format(other).encode())


async def test_a_film_without_sound_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no sound track"):
        await decode(written(sine(), "mp4", None, picture="mpeg4"))


@pytest.mark.parametrize(
    "data", [b"RIFF", b"\0" * 5000, b"no sound at all " * 500, random.Random(1).randbytes(9000)]
)
async def test_what_is_no_sound_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="could not be decoded as sound") as caught:
        await decode(data)
    assert caught.value.param == "file"


async def test_an_empty_file_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        await decode(b"")


async def test_a_file_without_a_single_sample_is_refused(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "none.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    with pytest.raises(InvalidRequest, match="could not be decoded as sound"):
        await decode(tmp_path / "none.wav")


async def test_limits() -> None:
    file = written(sine(3), "flac", "flac")
    assert len(await decode(file, Limits(most_seconds=3))) == 48_000
    with pytest.raises(InvalidRequest, match=r"longer than the 2.5 seconds"):
        await decode(file, Limits(most_seconds=2.5))
    with pytest.raises(PayloadTooLarge, match="10 are allowed"):
        await decode(file, Limits(most_bytes=10))


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A hundred hours of silence in a file that takes no room."""
    path = tmp_path / "endless.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8_000)
        file.setnframes(100 * 3600 * 8_000)
        file.writeframesraw(b"\x80")
    header = bytearray(path.read_bytes()[:44])
    header[4:8], header[40:44] = (0xFFFFFFF0).to_bytes(4, "little"), (0xFFFFFF00).to_bytes(4, "little")
    path.write_bytes(header)
    os.truncate(path, 100 * 3600 * 8_000)
    return path


GENEROUS = {"most_bytes": 1 << 40, "most_seconds": 1e9}


@pytest.mark.parametrize("limits", [{"most_cpu_seconds": 1}, {"most_wall_seconds": 0.5}])
async def test_a_file_that_takes_too_long_is_given_up(endless: Path, limits: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match="took too long"):
        await decode(endless, Limits(**GENEROUS, **limits))
    assert not decoders()


async def test_who_leaves_takes_the_process_along(endless: Path) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(decode(endless, Limits(**GENEROUS)), 0.5)
    assert not decoders()


def decoders() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "basert.audio.decoding" in one.cmdline()]


async def test_damaged_files_give_sound_or_a_clear_sentence() -> None:
    """A hundred files, cut off, with flipped bits, or with one format's beginning on another's data."""
    drawn = random.Random(20)
    whole = [written(sine(1), *kind) for kind in KINDS] + [
        written(sine(1), container, codec, picture=picture) for container, codec, picture in FILMS
    ]
    gate = asyncio.Semaphore(3)

    async def attempt(data: bytes) -> bool:
        async with gate:
            try:
                samples = await decode(data, Limits(most_seconds=60, most_cpu_seconds=5))
            except InvalidRequest as error:
                return error.message.endswith(".") and error.param == "file"
            return len(samples) > 0 and bool(np.isfinite(samples).all())

    assert all(await asyncio.gather(*(attempt(damaged(drawn, whole)) for _ in range(100))))


def damaged(drawn: random.Random, files: list[bytes]) -> bytes:
    data = bytearray(drawn.choice(files))
    how = drawn.choice(["cut", "flip", "flip the beginning", "mislabel", "tear"])
    if how == "cut":
        return bytes(data[: drawn.randrange(1, len(data))])
    if how == "mislabel":
        return drawn.choice(files)[: drawn.randrange(4, 200)] + bytes(data)
    if how == "tear":
        start = drawn.randrange(len(data))
        return bytes(data[:start] + data[start + drawn.randrange(1, 2000) :]) or b"-"
    reach = len(data) if how == "flip" else min(len(data), 300)
    for _ in range(drawn.randrange(1, 40)):
        data[drawn.randrange(reach)] ^= 1 << drawn.randrange(8)
    return bytes(data)
