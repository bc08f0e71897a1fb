"""A frozen dataclass of settings, filled from flags, environment, a TOML file and defaults, in that order.

A field declares everything once: its name, its type, its default and, as `Annotated` metadata, a Help. Flags,
variables, file keys and messages are derived. Knows no setting by name: basert.config declares them.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from basert.errors import ConfigError
from basert.paths import expand

PREFIX = "BASERT_"
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_WANTED = {int: "a whole number", float: "a number", bool: "true or false"}

Config = TypeVar("Config")


@dataclass(frozen=True)
class Help:
    """What a setting's annotation says beside its type."""

    text: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False


@dataclass(frozen=True)
class Setting:
    """One declared setting, ready to be parsed from any source."""

    name: str
    kind: type  # int, float, bool, str or Path
    repeats: bool
    default: Any
    help: Help

    @property
    def flag(self) -> str:
        return "--" + self.key

    @property
    def key(self) -> str:
        """Its name in the TOML file."""
        return self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    def parse(self, raw: Any, source: str) -> Any:
        """A checked value from a text (flag, variable) or TOML value. Raises ConfigError naming `source`."""
        if not self.repeats:
            return self._parse_one(raw, source)
        items = [item.strip() for item in raw.split(",")] if isinstance(raw, str) else raw
        if not isinstance(items, list | tuple):
            raise ConfigError(f"{source}: a list of texts is wanted, not {raw!r}.")
        return tuple(self._parse_one(item, source) for item in items)

    def shown(self, value: Any) -> str:
        """The value as it may be printed; a secret may not."""
        if self.help.secret and value:
            return "(hidden)"
        if isinstance(value, tuple):
            return ", ".join(map(str, value)) or "-"
        if isinstance(value, bool):
            return str(value).lower()
        return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    def _parse_one(self, raw: Any, source: str) -> Any:
        try:
            value = self._convert(raw)
        except (TypeError, ValueError):
            wanted = _WANTED.get(self.kind, "a text")
            raise ConfigError(f"{source}: {wanted} is wanted, not {self.shown(raw)}.") from None
        self._check(value, source)
        return value

    def _convert(self, raw: Any) -> Any:
        if self.kind is bool:
            if str(raw).lower() in _TRUE | _FALSE:
                return str(raw).lower() in _TRUE
            raise ValueError
        if isinstance(raw, bool) or (self.kind is int and isinstance(raw, float)):
            raise ValueError  # int() and float() would take them
        if self.kind in (str, Path) and (not isinstance(raw, str | Path) or not str(raw)):
            raise ValueError
        value = self.kind(raw)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        return expand(value) if isinstance(value, Path) else value

    def _check(self, value: Any, source: str) -> None:
        least, most, choices = self.help.least, self.help.most, self.help.choices
        if least is not None and not value >= least:
            raise ConfigError(f"{source}: {value} is less than {least:g}.")
        if most is not None and not value <= most:
            raise ConfigError(f"{source}: {value} is more than {most:g}.")
        if choices and value not in choices:
            raise ConfigError(f"{source}: {value!r} is none of {', '.join(choices)}.")


@dataclass(frozen=True)
class Loaded(Generic[Config]):
    """A configuration and, by setting name, where each value came from."""

    config: Config
    sources: Mapping[str, str]

    def table(self) -> str:
        """One line per setting: name, value, source."""
        rows = [
            (one.key, one.shown(getattr(self.config, name)), self.sources[name])
            for name, one in declared(type(self.config)).items()
        ]
        wide = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c}" for a, b, c in rows)


def declared(config: type) -> dict[str, Setting]:
    """Every setting of a dataclass, by name, in the order of declaration, inherited ones last."""
    hints = typing.get_type_hints(config, include_extras=True)
    fields = sorted(dataclasses.fields(config), key=lambda field: field.name not in config.__annotations__)
    return {field.name: _setting(field, hints[field.name]) for field in fields}


def _setting(field: dataclasses.Field[Any], hint: Any) -> Setting:
    annotated, text = typing.get_args(hint)
    repeats = typing.get_origin(annotated) is tuple
    optional = isinstance(annotated, types.UnionType)
    kind = typing.get_args(annotated)[0] if repeats or optional else annotated
    return Setting(field.name, kind, repeats, field.default, text)


def load(
    config: type[Config], flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None
) -> Loaded[Config]:
    """Merge flags (only those that were given, by setting name) over environment over file over defaults.

    Raises ConfigError that names the setting and the source.
    """
    settings = declared(config)
    entries = _read_file(file, settings) if file is not None else {}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, one in settings.items():
        if name in flags:
            sources[name], values[name] = f"flag {one.flag}", one.parse(flags[name], one.flag)
        elif environ.get(one.variable):
            sources[name], values[name] = one.variable, one.parse(environ[one.variable], one.variable)
        elif name in entries:
            sources[name], values[name] = str(file), one.parse(entries[name], f"{file}, {one.key}")
        else:
            sources[name], values[name] = "default", one.default
    return Loaded(config(**values), sources)


def _read_file(file: Path, settings: Mapping[str, Setting]) -> dict[str, Any]:
    try:
        raw = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {file} cannot be read: {reason(error)}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"The configuration file {file} is no valid TOML: {error}.") from None
    entries = {key.replace("-", "_"): value for key, value in raw.items()}
    for name in entries.keys() - settings.keys():
        near = difflib.get_close_matches(name, settings, n=1)
        hint = f"did you mean {settings[near[0]].key}?" if near else "`basert serve --help` lists them."
        raise ConfigError(f"{file}: there is no setting {name.replace('_', '-')}; {hint}")
    return entries


def reason(error: Exception) -> str:
    """Why a file could not be read, in words."""
    return str(error.strerror) if isinstance(error, OSError) else "it is not UTF-8 text"
