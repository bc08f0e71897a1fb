"""API keys: what a key file says, one line for each, and what each key may do. Knows no HTTP.

    sk-9f2c…                 # a key as clients send it, which may do everything
    sha256:9f86d081884c…  name=alice  models=smollm2,whisper-*  tokens-per-minute=40000  priority=batch
    sha256:60303ae22b99…  name=ops  admin

A key is kept as its hash only. `sha256:` and the hash may stand in a key's place in the file as well.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from basert import settings
from basert.errors import ConfigError

HASHED = "sha256:"
UNNAMED = "unnamed"  # what all keys without a name are called in logs and figures
PRIORITIES = {"interactive": 0, "batch": 1}  # as basert.messages.Submit has them
MOST_PER_MINUTE = 10**9

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")


class Limits(msgspec.Struct, frozen=True):
    """What may be used in a minute; None sets no limit."""

    requests: int | None = None
    tokens: int | None = None


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One key, and what it may do."""

    digest: str  # SHA-256 of the key, in hex; of whoever comes to an open server: ""
    name: str = UNNAMED
    admin: bool = False
    models: tuple[str, ...] = ()  # patterns of names; (): every model
    limits: Limits = Limits()
    priority: int = PRIORITIES["interactive"]  # the most urgent that its requests may be

    def allowed(self, *names: str) -> bool:
        """Whether it may use the model that has these names."""
        return not self.models or any(fnmatchcase(name, one) for name in names for one in self.models)

    @property
    def is_restricted(self) -> bool:
        return bool(self.models or self.priority) or self.limits != Limits()

    def line(self) -> str:
        """As a key file has it."""
        fields = [] if self.name == UNNAMED else [f"name={self.name}"]
        fields += ["admin"] if self.admin else []
        fields += [f"models={','.join(self.models)}"] if self.models else []
        for field, most in (
            ("requests-per-minute", self.limits.requests),
            ("tokens-per-minute", self.limits.tokens),
        ):
            fields += [] if most is None else [f"{field}={most}"]
        fields += ["priority=batch"] if self.priority else []
        return "  ".join([HASHED + self.digest, *fields])


ANYBODY = Key(digest="", name="", admin=True)  # whoever comes to an open server


def digest(key: str) -> str:
    """What is kept of a key. Bytes that were no UTF-8 may be in it as surrogates."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def new() -> str:
    """A fresh key: 256 random bits."""
    return "sk-" + secrets.token_hex(32)


def read(given: Sequence[str], file: Path | None) -> list[Key]:
    """The keys in force: those given directly and those in the file. Raises ConfigError naming the line."""
    listed = [] if file is None else _read_file(file)
    known = {key.digest for key in listed}
    keys = [Key(digest=_digest(one, "--api-key")) for one in given]
    return with_admins([*(key for key in keys if key.digest not in known), *listed])


def with_admins(keys: Sequence[Key]) -> list[Key]:
    """Where no key is marked as an administrator's, all are that nothing is denied to."""
    if any(key.admin for key in keys):
        return list(keys)
    return [msgspec.structs.replace(key, admin=not key.is_restricted) for key in keys]


def _read_file(file: Path) -> list[Key]:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = settings.reason(error)
        raise ConfigError(f"--api-key-file {file} cannot be read: {why}.") from None
    keys = parse_file(text, f"--api-key-file {file}")
    if not keys:
        raise ConfigError(f"--api-key-file {file} holds no key; `basert key new` makes one.")
    return keys


def parse_file(text: str, source: str) -> list[Key]:
    """All keys of a key file, perhaps none. Raises ConfigError that names `source` and the line."""
    found: dict[str, tuple[int, Key]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{source}, line {number}"
        if (key := parse(line, where)) is None:
            continue
        first, same = found.setdefault(key.digest, (number, key))
        if same != key:
            raise ConfigError(f"{where}: this key is on line {first} already, with other fields.")
    return [key for _, key in found.values()]


def parse(line: str, where: str) -> Key | None:
    """One line of a key file; None if it says nothing. Raises ConfigError that begins with `where`."""
    words = line.split()
    for place, word in enumerate(words):
        if word.startswith("#"):
            words = words[:place]
            break
    if not words:
        return None
    said: dict[str, Any] = {}
    for field in words[1:]:
        name, value = _field(field, where)
        if name in said:
            raise ConfigError(f"{where}: {name} is there twice.")
        said[name] = value
    limits = Limits(said.pop("requests-per-minute", None), said.pop("tokens-per-minute", None))
    return Key(digest=_digest(words[0], where), limits=limits, **said)


def _digest(word: str, where: str) -> str:
    if not word.startswith(HASHED):
        return digest(word)
    named = word.removeprefix(HASHED).lower()
    if not _HASH.fullmatch(named):
        raise ConfigError(
            f"{where}: {HASHED} is followed by the SHA-256 of a key, 64 hexadecimal digits; "
            "`basert key new` writes such a line."
        )
    return named


def _field(field: str, where: str) -> tuple[str, Any]:
    name, equals, text = field.partition("=")
    if name not in _FIELDS:
        near = difflib.get_close_matches(name, _FIELDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_FIELDS)}."
        raise ConfigError(f"{where}: {name!r} is nothing that can be said of a key; {hint}")
    if bool(equals) == (name == "admin"):
        mend = "admin stands alone" if name == "admin" else f"write {name}=…, without spaces around ="
        raise ConfigError(f"{where}: {mend}.")
    try:
        return name, _FIELDS[name](text)
    except ValueError as error:
        raise ConfigError(f"{where}: {field!r}: {error}.") from None


def _named(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(
            "a name has at most 64 letters, digits and . _ @ -, and begins with one of the former"
        )
    return text


def _patterns(text: str) -> tuple[str, ...]:
    patterns = tuple(text.split(","))
    if not all(patterns):
        raise ValueError("names or patterns of models are wanted, with commas and no spaces between them")
    return patterns


def _per_minute(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:20]) <= MOST_PER_MINUTE:
        raise ValueError(f"a whole number from 1 to {MOST_PER_MINUTE} is wanted")
    return int(text)


def _priority(text: str) -> int:
    if text not in PRIORITIES:
        raise ValueError(f"one of {', '.join(PRIORITIES)} is wanted")
    return PRIORITIES[text]


_FIELDS: dict[str, Callable[[str], Any]] = {
    "name": _named,
    "admin": lambda _: True,
    "models": _patterns,
    "requests-per-minute": _per_minute,
    "tokens-per-minute": _per_minute,
    "priority": _priority,
}


def to_json(keys: Sequence[Key]) -> bytes:
    return msgspec.json.encode(keys)


def load(file: Path) -> list[Key]:
    """What to_json has made. Raises ConfigError."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[Key])
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}.") from None
