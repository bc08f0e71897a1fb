"""Short texts that ship with the project, written for it: calibration and evaluation never share a line."""

from __future__ import annotations

from importlib.resources import files


def calibration() -> str:
    return _read("calibration.txt")


def evaluation() -> str:
    return _read("evaluation.txt")


def _read(name: str) -> str:
    return files("export").joinpath("texts", name).read_text(encoding="utf-8")
