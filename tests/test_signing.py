"""Signed bundles: what was changed is named before anything of it is read, also by a running server."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from basert import digests, signing
from basert.__main__ import cli
from basert.errors import BasertError, BundleError, ConfigError
from basert.manifest import MANIFEST, SIGNATURE
from tests.processes.live import engine_of
from tests.serving import Server
from tests.tiny import GRAPH, write_testing_bundle


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = tmp_path_factory.mktemp("keys") / "release.pem"
    assert "keep it secret" in CliRunner().invoke(cli, ["key", "pair", str(key)]).output
    assert key.stat().st_mode & 0o777 == 0o600
    return key


@pytest.fixture(scope="module")
def public(private: Path) -> Path:
    return private.with_name("release.pem.pub")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, private: Path) -> Path:
    bundle = write_testing_bundle(tmp_path_factory.mktemp("b"))
    done = CliRunner().invoke(cli, ["sign", str(bundle), "--key", str(private)])
    assert done.exception is None, done.output
    return bundle


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "tiny")


def change(path: Path) -> None:
    """One byte, with no other size."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


TAMPERINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "graph": (lambda bundle: change(bundle / GRAPH), f"{GRAPH} was changed"),
    "manifest": (lambda bundle: change(bundle / MANIFEST), f"{MANIFEST} was changed"),
    "no manifest's business": (lambda bundle: (bundle / MANIFEST).write_text("{"), f"{MANIFEST} was changed"),
    "added": (lambda bundle: (bundle / "graphs/more").write_text("x"), "graphs/more was added"),
    "git": (lambda bundle: (bundle / ".gitignore").write_text("x"), ".gitignore was added"),
    "removed": (lambda bundle: (bundle / GRAPH).unlink(), f"{GRAPH} was removed"),
    "link": (
        lambda bundle: (bundle / "linked").symlink_to("/etc/hostname"),
        "linked is a link",
    ),
    "linked folder": (lambda bundle: (bundle / "more").symlink_to("/etc"), "more is a link"),
    "unsigned": (lambda bundle: (bundle / SIGNATURE).unlink(), "is not signed"),
    "cut signature": (
        lambda bundle: (bundle / SIGNATURE).write_bytes((bundle / SIGNATURE).read_bytes()[:-100]),
        "was not made with the other half of",
    ),
    "changed signature": (lambda bundle: change(bundle / SIGNATURE), "was not made with the other half of"),
}


@pytest.mark.parametrize(("tamper", "sentence"), TAMPERINGS.values(), ids=TAMPERINGS)
def test_what_was_tampered_with_is_named(
    bundle: Path, public: Path, tamper: Callable[[Path], object], sentence: str
) -> None:
    signing.verify(bundle, public)
    tamper(bundle)
    with pytest.raises(BundleError) as raised:
        signing.verify(bundle, public)
    assert sentence in str(raised.value)
    refused = CliRunner().invoke(cli, ["verify", str(bundle), "--key", str(public)])
    assert isinstance(refused.exception, BasertError)


def test_a_manifest_that_is_made_to_fit_is_found_too(bundle: Path, public: Path, tmp_path: Path) -> None:
    """Whoever writes all of a bundle anew still lacks the key."""
    other = write_testing_bundle(tmp_path / "other", slots=3)
    for path in other.rglob("*"):
        if path.is_file():
            shutil.copy(path, bundle / path.relative_to(other))
    with pytest.raises(BundleError, match=r"manifest\.json was changed"):
        signing.verify(bundle, public)


def test_what_was_compiled_here_is_nobody_s_to_sign(bundle: Path, public: Path) -> None:
    (bundle / "compiled/key").mkdir(parents=True)
    (bundle / "compiled/key/plan").write_text("native code")
    signing.verify(bundle, public)


def test_a_bundle_may_be_renamed(bundle: Path, public: Path) -> None:
    signing.verify(bundle.rename(bundle.with_name("other")), public)


def test_another_s_key(bundle: Path, tmp_path: Path) -> None:
    other = signing.make_pair(tmp_path / "other.pem")
    with pytest.raises(BundleError, match=r"was not made with the other half of .*other.pem.pub"):
        signing.verify(bundle, other)


def test_keys_that_openssl_made(bundle: Path, tmp_path: Path) -> None:
    key, public = tmp_path / "k.pem", tmp_path / "k.pub"
    subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key], check=True
    )
    subprocess.run(["openssl", "ec", "-in", key, "-pubout", "-out", public], check=True, capture_output=True)
    signing.sign(bundle, key)
    signing.verify(bundle, public)


@pytest.mark.parametrize("content", [b"no key", b"", b"\xff"])
def test_what_is_no_key_is_told(bundle: Path, tmp_path: Path, content: bytes) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(content)
    with pytest.raises(
        ConfigError, match=r"--key .*wrong is no key that fits: the public key .* `basert key pair`"
    ):
        signing.verify(bundle, wrong, "--key")
    with pytest.raises(ConfigError, match=r"--key .*wrong is no key that fits: the private key"):
        signing.sign(bundle, wrong)
    with pytest.raises(ConfigError, match=r"--key .*none cannot be read: No such file"):
        signing.verify(bundle, tmp_path / "none", "--key")


def test_keys_of_other_kinds_are_told(bundle: Path, private: Path, public: Path, tmp_path: Path) -> None:
    key, other = tmp_path / "k.pem", tmp_path / "k.pub"
    for command in (
        f"openssl genrsa -out {key} 2048",
        f"openssl ecparam -name secp256k1 -genkey -noout -out {key}",
        f"openssl ec -in {private} -aes128 -passout pass:x -out {key}",
    ):
        subprocess.run(command.split(), check=True, capture_output=True)
        with pytest.raises(ConfigError, match="is no key that fits"):
            signing.sign(bundle, key)
    subprocess.run(f"openssl genrsa -out {key} 2048".split(), check=True, capture_output=True)
    subprocess.run(f"openssl rsa -in {key} -pubout -out {other}".split(), check=True, capture_output=True)
    for wrong in (other, private):  # instead of the public key of such a pair
        with pytest.raises(ConfigError, match="is no key that fits"):
            signing.verify(bundle, wrong)
    with pytest.raises(ConfigError, match="is no key that fits"):
        signing.sign(bundle, public)


def test_without_the_extra_it_is_named(bundle: Path, public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(ConfigError, match=r"pip install 'basert\[signing\]'"):
        signing.verify(bundle, public)


async def test_what_is_compiled_of_a_signed_bundle_lies_elsewhere(
    bundle: Path, public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever brings a bundle may bring native code in compiled/."""
    monkeypatch.setenv("BASERT_HOME", str(tmp_path / "store"))
    with Server([bundle], ["--require-signature", str(public)]) as server:
        command = engine_of(server).cmdline()
    folder = Path(command[command.index("--compiled") + 1])
    assert folder.parent == tmp_path / "store/.compiled"


def test_a_pair_overwrites_nothing(private: Path) -> None:
    before = private.read_bytes()
    with pytest.raises(ConfigError, match="is there already"):
        signing.make_pair(private)
    assert private.read_bytes() == before


def test_a_damaged_bundle_is_not_signed(bundle: Path, private: Path) -> None:
    change(bundle / GRAPH)
    refused = CliRunner().invoke(cli, ["sign", str(bundle), "--key", str(private)])
    assert "was altered" in str(refused.exception)


def test_files_are_hashed_once_per_change(
    bundle: Path, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_signing import hashing

    hashed = list[str]()
    real = hashing.Config.hash

    def counting(self: hashing.Config, model: Path, *, files_to_hash: list[Path]) -> object:
        hashed.extend(str(path.relative_to(model)) for path in files_to_hash)
        return real(self, model, files_to_hash=files_to_hash)

    monkeypatch.setattr(hashing.Config, "hash", counting)
    monkeypatch.setattr(digests, "SETTLED_SECONDS", 0.0)
    signing.verify(bundle, public)
    assert len(hashed) == len(set(hashed)) > 3
    hashed.clear()
    signing.verify(bundle, public)
    assert hashed == []
    (bundle / GRAPH).write_bytes((bundle / GRAPH).read_bytes())
    signing.verify(bundle, public)
    assert hashed == [GRAPH]


def test_a_server_takes_signed_bundles_only(bundle: Path, public: Path) -> None:
    flags = ["--require-signature", str(public)]
    with Server([bundle], flags) as server:
        assert [model.id for model in server.openai().models.list()] == ["tiny"]
    (bundle / MANIFEST).write_text("{")
    with pytest.raises(BasertError, match=r"manifest\.json was changed after .* was signed"):
        Server([bundle], flags).__enter__()


async def test_an_engine_is_not_started_from_what_was_changed(bundle: Path, public: Path) -> None:
    flags = ["--require-signature", str(public), "--restart-limit", "4"]
    with Server([bundle], flags) as server:
        engine_of(server).kill()
        while "starts again" not in server.log():
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.wait_ready)  # it was as it had been signed
        (bundle / GRAPH).write_text("{}")
        engine_of(server).kill()
        while "is given up" not in server.log():
            await asyncio.sleep(0.01)
        assert f"{GRAPH} was changed after" in server.log()
