"""Real speech: five sentences read aloud, at 16 kHz, with their words and when each was spoken."""

from __future__ import annotations

import json
import wave
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from basert.bench import recordings
from tests.packages import DATA

NAMES = tuple(f"sense_and_sensibility_01_austen_64kb-0{number}" for number in (870, 880, 890, 920, 930))


@cache
def folder() -> Path:
    """Where they are: those that are measured with."""
    return recordings.fetch(DATA / "bench")


@cache
def speech(name: str = NAMES[0]) -> NDArray[np.float32]:
    with wave.open(str(folder() / f"{name}.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def spoken(name: str = NAMES[0]) -> tuple[float, float]:
    """When the first word begins and the last one ends, in seconds, as PocketSphinx aligned them."""
    words = json.loads((folder() / f"{name}.json").read_text())["w"]
    times = [(one["b"], one["b"] + one["d"]) for one in words if not one["t"].startswith("<")]
    return times[0][0], times[-1][1]


def silence(seconds: float) -> NDArray[np.float32]:
    return np.zeros(int(seconds * 16_000), np.float32)


def noise(seconds: float, power: float, seed: int = 0, brown: bool = False) -> NDArray[np.float32]:
    """White noise, or brown: a rumble."""
    values = np.random.default_rng(seed).normal(size=int(seconds * 16_000))
    if brown:
        values = np.cumsum(values - values.mean())
        values -= np.convolve(values, np.full(800, 1 / 800), "same")  # nothing below some 20 Hz
    return (values * np.sqrt(power / np.mean(values**2))).astype(np.float32)
