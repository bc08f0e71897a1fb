"""An adapter's bundle: a low-rank change (LoRA) of one exported base. Knows files, no runtime.

    <store>/<name>/
      adapter.json     this module's Adapter
      factors.npz      of each layer that it changes, float32, scaled, and folded as the base is:
                       "<layer>.a" [parts, inputs, unit], "<layer>.b" [parts * unit, outputs]

For each module in turn there are as many parts as units, then come idle ones, see basert.manifest.LoraLayer.
`basert export-lora` writes it. The digest of adapter.json is the build's name.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from basert.errors import BundleError
from basert.manifest import File, Lora, Manifest, ParityNumbers, Source

SCHEMA = 1
ADAPTER = "adapter.json"
FACTORS = "factors.npz"


class Adapter(msgspec.Struct, frozen=True):
    schema: int
    name: str
    base: str  # the bundle that it was made for
    base_hash: str  # Lora.base of that
    rank: int  # the largest of any module
    units: int  # of Lora.unit ranks each, a power of two
    alpha: float
    scaled: str  # "alpha / r" | "alpha / sqrt(r)"
    modules: list[str]  # that it changes, by the last part of their names: "q_proj"
    source: Source
    created: int  # Unix seconds
    basert: str
    versions: dict[str, str]  # torch, transformers, peft used at export
    parity: ParityNumbers
    files: list[File]


def is_adapter(bundle: Path) -> bool:
    return (bundle / ADAPTER).is_file()


def read_adapter(bundle: Path) -> Adapter:
    """Raises BundleError with the mend when it is missing, damaged, or from another schema."""
    path = bundle / ADAPTER
    try:
        adapter = msgspec.json.decode(path.read_bytes(), type=Adapter)
    except FileNotFoundError:
        raise BundleError(
            f"{bundle} is no adapter (it has no {ADAPTER}); make one with `basert export-lora`."
        ) from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from None
    except msgspec.DecodeError as error:
        raise BundleError(f"{path} is damaged ({error}); export the adapter again.") from None
    if len(adapter.files) != 1 or adapter.units < 1 or adapter.units & (adapter.units - 1):
        raise BundleError(f"{path} is damaged (it makes no sense); export the adapter again.")
    if adapter.schema != SCHEMA:
        raise BundleError(
            f"{bundle} has schema {adapter.schema}, this basert reads {SCHEMA}; export the adapter again."
        )
    return adapter


def lora_of(base: Manifest) -> Lora:
    """How the base takes adapters. Raises BundleError when it does not."""
    if base.lora is None:
        if base.family != "decoder":
            raise BundleError(f"the model {base.name} generates no text; adapters are for models that do.")
        raise BundleError(
            f"the model {base.name} was exported without a graph for adapters; export it again, and if that "
            "does not help, its architecture takes none."
        )
    return base.lora


def check_base(adapter: Adapter, base: Manifest) -> Lora:
    """How the base takes this adapter. Raises BundleError when it was made for another base or build."""
    lora = lora_of(base)
    if adapter.base_hash == lora.base:
        return lora
    mend = f"run `basert export-lora` for it with --base {base.name}"
    if adapter.base != base.name:
        raise BundleError(
            f"the adapter {adapter.name} was made for {adapter.base}, not for {base.name}; {mend}."
        )
    raise BundleError(f"the adapter {adapter.name} was made for another build of {base.name}; {mend}.")


def digest(bundle: Path) -> str:
    """The build's name: SHA-256 of adapter.json, which itself holds the hash of the factors."""
    return hashlib.sha256((bundle / ADAPTER).read_bytes()).hexdigest()
