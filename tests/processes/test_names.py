"""What names mean through loads, unloads and swaps, against a plain account of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from basert.errors import Conflict
from basert.supervisor.names import Names

MODELS = ("a", "b", "c")
ALIASES = ("x", "y", "a", "b")


class _Build:
    def __init__(self, name: str) -> None:
        self.name = name


def _build(name: str) -> Any:
    return _Build(name)


class Account(RuleBasedStateMachine):
    """`means` is the model's own name that each name stands for; `builds` are those that are loaded."""

    @initialize()
    def begin(self) -> None:
        self.names = Names()
        self.means: dict[str, str] = {}
        self.builds: dict[str, Any] = {}
        for name, aliases in (("a", ("x", "y")), ("b", ())):
            build = self.builds[name] = _build(name)
            self.names.add(build, aliases)
            self.means |= dict.fromkeys((name, *aliases), name)

    @rule(name=st.sampled_from(MODELS))
    def load(self, name: str) -> None:
        own = self.means.get(name, name)
        if own not in self.builds:
            self.builds[own] = _build(own)
            self.names.add(self.builds[own])
            self.means[own] = own

    @rule(name=st.sampled_from((*MODELS, *ALIASES)))
    def unload(self, name: str) -> None:
        build = self.names.find(name)
        assert build is self.builds.get(self.means.get(name, name))
        if build is not None:
            self.names.remove(build)
            del self.builds[build.name]

    @rule(alias=st.sampled_from(ALIASES), name=st.sampled_from(MODELS))
    def swap(self, alias: str, name: str) -> None:
        if not self.names.knows(alias):
            return
        if self.means.get(name, name) != name != alias:
            with pytest.raises(Conflict, match="is itself an alias"):
                self.names.check_swap(alias, name)
            return
        self.names.check_swap(alias, name)
        expected = self.names.replaced(alias, name)
        old, new = self.means.get(alias, alias), _build(name)
        assert self.names.move(alias, new) == expected
        moved = [one for one, model in self.means.items() if one == alias or (model == old == alias)]
        self.means |= dict.fromkeys((*moved, alias, name), name)
        still = any(model == old for one, model in self.means.items() if one != old)
        gone = {name} | (set() if still or old == name else {old})
        assert {build.name for build in expected} == gone & self.builds.keys()
        for one in gone:
            self.builds.pop(one, None)
        if not still and self.means.get(old) == old != name:
            del self.means[old]
        self.builds[name] = new

    @invariant()
    def names_mean_what_they_should(self) -> None:
        for name in {*self.means, *MODELS}:
            assert self.names.find(name) is self.builds.get(self.means.get(name, name))
        for own, build in self.builds.items():
            assert self.names.of(build)[0] == own
            assert set(self.names.of(build)) == {own} | {one for one, to in self.means.items() if to == own}


TestNames = Account.TestCase
