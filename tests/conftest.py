"""Bundles to test with: real ones, exported by the command line once per version of the exporter.

They live in .cache/test-store; `basert export` itself knows when one is out of date. A test that wants only
a server, not a model, takes tests/tiny.py's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from basert.adapter import is_adapter, read_adapter
from basert.manifest import read_manifest
from tests.export.small import write_checkpoint
from tests.postgres import Postgres

# How long an example takes tells of the machine's other work.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

STORE = Path(__file__).parents[1] / ".cache" / "test-store"


def export(source: str, name: str, variant: str, *flags: str) -> Path:
    """`basert export` into the test store; a bundle that is up to date is left alone."""
    command = [sys.executable, "-m", "basert", "export", source, "--name", name, "--variant", variant, *flags]
    done = subprocess.run(
        command, env={**os.environ, "BASERT_HOME": str(STORE)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return STORE / name


@pytest.fixture(scope="session")
def smollm2_fp32() -> Path:
    return export("smollm2", "smollm2-fp32", "fp32")


@pytest.fixture(scope="session")
def smollm2_w8a8() -> Path:
    return export("smollm2", "smollm2-w8a8", "w8a8")


@pytest.fixture(scope="session")
def smollm2_int4() -> Path:
    return export("smollm2", "smollm2-int4", "int4")


@pytest.fixture(scope="session")
def minilm_fp32() -> Path:
    return export("minilm", "minilm-fp32", "fp32")


@pytest.fixture(scope="session")
def minilm_w8a8() -> Path:
    return export("minilm", "minilm-w8a8", "w8a8")


@pytest.fixture(scope="session")
def whisper_fp32() -> Path:
    return export("whisper-tiny.en", "whisper-tiny.en-fp32", "fp32")


@pytest.fixture(scope="session")
def whisper_w8a8() -> Path:
    return export("whisper-tiny.en", "whisper-tiny.en-w8a8", "w8a8")


def export_adapter(name: str, base: Path) -> Path:
    """`basert export-lora` of one of tests/adapters.py's into the test store, unless it is there already."""
    from tests.adapters import trained

    folder, bundle = trained(STORE, name), STORE / f"{name}-{base.name}"
    lora = read_manifest(base).lora
    assert lora is not None
    there = read_adapter(bundle) if is_adapter(bundle) else None
    if there is not None and (there.base_hash, there.source.uri) == (lora.base, str(folder)):
        return bundle
    command = [sys.executable, "-m", "basert", "export-lora", str(folder), "--base", base.name, "--force"]
    done = subprocess.run(
        [*command, "--name", bundle.name],
        env={**os.environ, "BASERT_HOME": str(STORE)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return bundle


@pytest.fixture(scope="session")
def tiny_llama() -> tuple[Path, Path]:
    """(bundle, checkpoint) of a two-layer Llama with random weights, in fp32."""
    checkpoint = STORE / "sources" / "tiny-llama"
    if not (checkpoint / "config.json").is_file():
        write_checkpoint(checkpoint, spread=0.25)
    return export(str(checkpoint), "tiny-llama", "fp32"), checkpoint


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server
