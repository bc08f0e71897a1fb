"""Signatures of bundles, as OpenSSF Model Signing has them, with elliptic curve keys of one's own.

    <bundle>/model.sig    the SHA-256 of every other file of the bundle, signed

What is in `compiled/` was made on the host that runs the bundle, and is signed by nobody: whoever asks for
signatures has it kept elsewhere (`engine_flags`). Knows files and hashes, and reads no bundle: it is
checked before anything of it is parsed. The library is loaded when it is needed (extra `signing`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from basert import store
from basert.errors import BundleError, ConfigError
from basert.manifest import COMPILED, SIGNATURE, digest


def sign(bundle: Path, key: Path) -> None:
    """Write the signature of all files. Raises BundleError, ConfigError."""
    with _library(key, "private", "--key"):
        from model_signing import signing

        from basert.digests import OncePerChange

        signer = signing.Config().use_elliptic_key_signer(private_key=key)
    new = bundle / f"{SIGNATURE}.new"
    new.unlink(missing_ok=True)  # of one that was cut off
    try:
        signer.set_hashing_config(OncePerChange()).sign(bundle, new)
        new.rename(bundle / SIGNATURE)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise BundleError(f"{bundle} cannot be signed: {error.strerror}.") from None


def verify(bundle: Path, public_key: Path, flag: str = "--require-signature") -> None:
    """Raises BundleError that names what was changed, added or removed since the bundle was signed.

    ConfigError, with the flag that named it, for a key that is none. May take long: files are hashed that
    have changed since this process hashed them last.
    """
    with _library(public_key, "public", flag):
        from model_signing import verifying

        from basert.digests import OncePerChange

        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    signature = bundle / SIGNATURE
    if not signature.is_file():
        raise BundleError(f"{bundle} is not signed (it has no {SIGNATURE}); `basert sign` does that.")
    try:
        verifier.set_hashing_config(OncePerChange()).verify(bundle, signature)
    except BundleError:
        raise
    except OSError as error:
        raise BundleError(f"{bundle} cannot be read: {error.strerror}.") from None
    except Exception as error:  # what is wrong with a signature, the library says in many ways
        raise BundleError(
            f"{signature} was not made with the other half of {public_key}, or is damaged; get the bundle "
            "from where it was signed."
        ) from error


def check_key(public_key: Path, flag: str) -> None:
    """Raises ConfigError for a file that is no public key, or where the library is missing."""
    with _library(public_key, "public", flag):
        from model_signing import verifying

        verifying.Config().use_elliptic_key_verifier(public_key=public_key)


def make_pair(file: Path) -> Path:
    """Write a private key to `file` and the public one beside it; returns that path. Raises ConfigError."""
    public = file.with_name(f"{file.name}.pub")
    with _library(file, "private", "the key"):
        from cryptography.hazmat.primitives import serialization as form
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    shown = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    for path, content, mode in ((public, shown, 0o644), (file, private, 0o600)):
        if file.exists():
            raise ConfigError(f"{file} is there already; choose another name.")
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}.") from None
        with os.fdopen(handle, "wb") as out:
            out.write(content)
    return public


def engine_flags(bundle: Path) -> list[str]:
    """For the engine of a bundle that has to be signed: what it compiles lies elsewhere in the store."""
    return ["--compiled", str(store.store_root() / f".{COMPILED}" / digest(bundle)[:24])]


@contextmanager
def _library(key: Path, what: str, flag: str) -> Iterator[None]:
    """Around imports, and the reading of a key. what: "public" | "private" """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"signatures need basert's signing extra ({error.name} is not installed): "
            "pip install 'basert[signing]'."
        ) from None
    except OSError as error:
        raise ConfigError(f"{flag} {key} cannot be read: {error.strerror}.") from None
    except Exception as error:  # what is wrong with a key, the library says in many ways
        raise ConfigError(
            f"{flag} {key} is no key that fits: the {what} key of a pair on P-256, P-384 or P-521 is "
            "wanted, in PEM and without a passphrase; `basert key pair` makes one."
        ) from error
