"""What clients call models: each by its own name, and by aliases, which stand for a name.

An alias outlives what it stands for: once that is loaded again, the alias means it again.
"""

from __future__ import annotations

from collections.abc import Iterable

from basert.errors import Conflict, ModelNotFound
from basert.supervisor.build import Build


class Names:
    def __init__(self) -> None:
        self._builds: dict[str, Build] = {}  # by the model's own name
        self._aliases: dict[str, str] = {}  # to the model's own name, which is no alias itself

    def add(self, build: Build, aliases: Iterable[str] = ()) -> None:
        """From now on its own name means this build."""
        self._builds[build.name] = build
        self._aliases |= dict.fromkeys(aliases, build.name)

    def remove(self, build: Build) -> None:
        self._builds = {name: one for name, one in self._builds.items() if one is not build}

    def model(self, name: str) -> str:
        """The model's own name, whichever of its names this is."""
        return self._aliases.get(name, name)

    def find(self, name: str) -> Build | None:
        return self._builds.get(self.model(name))

    def get(self, name: str) -> Build:
        """Raises ModelNotFound."""
        if (build := self.find(name)) is None:
            loaded = ", ".join(self.all()) or "none"
            raise ModelNotFound(f"The model {name!r} is not loaded; this server has {loaded}.", param="model")
        return build

    def knows(self, name: str) -> bool:
        return name in self._aliases or name in self._builds

    def of(self, build: Build) -> list[str]:
        """All names of a build, its own first."""
        own = [name for name, one in self._builds.items() if one is build]
        return own + [alias for alias, name in self._aliases.items() if name in own]

    def all(self) -> list[str]:
        return [*self._builds, *(alias for alias, name in self._aliases.items() if name in self._builds)]

    def check_swap(self, alias: str, name: str) -> None:
        """Raises Conflict when `name`, the own name of what `alias` is to mean, stands for something else."""
        if name != alias and name in self._aliases:
            raise Conflict(
                f"{name} is itself an alias, of {self.model(name)}; name the model that {alias} is to mean.",
                param="model",
            )

    def replaced(self, alias: str, name: str) -> list[Build]:
        """The builds that no name will mean any more once `alias` means the model `name`, in a new build."""
        after, _ = self._moved(alias, name, None)
        return [build for build in self._builds.values() if build not in after.values()]

    def move(self, alias: str, build: Build) -> list[Build]:
        """Let an alias (or a model's own name) mean this build; return those that no name means any more."""
        before = list(self._builds.values())
        after, self._aliases = self._moved(alias, build.name, build)
        self._builds = {name: one for name, one in after.items() if one is not None}
        return [one for one in before if one not in self._builds.values()]

    def _moved(
        self, alias: str, name: str, build: Build | None
    ) -> tuple[dict[str, Build | None], dict[str, str]]:
        """A model loses its own name with the last alias that stood for it."""
        old = self.model(alias)
        aliases = {one: name if target == alias else target for one, target in self._aliases.items()}
        aliases = {one: target for one, target in (aliases | {alias: name}).items() if one != target}
        builds: dict[str, Build | None] = dict(self._builds)
        if old not in aliases.values():
            builds.pop(old, None)
        return builds | {name: build}, aliases
