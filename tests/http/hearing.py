"""Asks /v1/audio/… over fake models: forms as clients send them, and recordings of known windows."""

from __future__ import annotations

import io
import wave
from functools import cache
from typing import Any

import numpy as np
from falcon.testing import ASGIConductor, Result
from numpy.typing import NDArray

from basert.messages import Submit
from tests.audio.recordings import NAMES, silence, speech

PATH = "/v1/audio/transcriptions"
BOUNDARY = "0f0e0d0c"
Json = dict[str, Any]


def wav(samples: NDArray[np.float32]) -> bytes:
    """Mono, 16 kHz, 16 bit."""
    file = io.BytesIO()
    with wave.open(file, "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(16_000)
        target.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


@cache
def short() -> bytes:
    """One window of speech."""
    return wav(speech())


@cache
def long(windows: int = 3) -> bytes:
    """Speech, then 24 s of silence, and again: so many windows."""
    pieces = [part for n in range(windows) for part in (speech(NAMES[n % len(NAMES)]), silence(24))]
    return wav(np.concatenate(pieces[:-1]))


def form(fields: list[tuple[str, str]], file: bytes | None, name: str = "speech.wav") -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields
    ]
    if file is not None:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        parts.append(head.encode() + b"Content-Type: audio/wav\r\n\r\n" + file + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def window_of(request: Submit) -> int:
    """Which window of `long` this is, by how long somebody speaks in it."""
    assert request.sound is not None
    features = np.frombuffer(request.sound.features, "<f4").reshape(80, 3000)
    heard = (features.std(axis=0) > 0.01).sum() / 100
    lengths = [len(speech(name)) / 16_000 for name in NAMES]
    return int(np.argmin([abs(length - heard) for length in lengths]))


async def post(
    client: ASGIConductor, *more: tuple[str, str], file: bytes | None = None, path: str = PATH, **fields: str
) -> Result:
    """`more`: fields whose names are no Python names, or that come twice."""
    body = form([*({"model": "whisper"} | fields).items(), *more], short() if file is None else file)
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return await client.simulate_post(path, body=body, headers=headers)


async def ask(client: ASGIConductor, *more: tuple[str, str], **fields: Any) -> Json:
    result = await post(client, *more, **fields)
    assert result.status_code == 200, result.text
    assert result.headers["content-type"] == "application/json"
    answer: Json = result.json
    return answer


async def refused(client: ASGIConductor, *more: tuple[str, str], status: int = 400, **fields: Any) -> Json:
    result = await post(client, *more, **fields)
    assert result.status_code == status, result.text
    error: Json = result.json["error"]
    assert error["message"]
    return error
