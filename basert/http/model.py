"""One build of a served model, as an HTTP worker has it: its bundle's files, and its engines as of now."""

from __future__ import annotations

import copy
import importlib
import time
from functools import cached_property
from pathlib import Path

from basert import manifest, text
from basert.errors import Unavailable
from basert.http.engine_client import RETRY_AFTER_FAILED, EngineClient, Wake
from basert.http.engine_link import RETRY_AFTER
from basert.messages import AdapterInfo, EngineInfo, EngineState, ModelState


class Model:
    """`bundle` is a folder with those of its files that are read here; it stays as it is."""

    adapter = ""  # the one that answers in its place, and
    parent = ""  # the name that the model has without it

    def __init__(self, state: ModelState, wake: Wake, workers: int) -> None:
        """wake, workers: see EngineClient. Raises BundleError."""
        self._state = state
        self.bundle = Path(state.bundle)
        self.manifest = manifest.read_manifest(self.bundle)
        self.digest = manifest.digest(self.bundle)
        self.created = self.manifest.provenance.created  # Unix seconds
        self.engine = EngineClient(state, wake, workers)
        self.prepared = False
        self.trouble = ""  # why it cannot be served here
        self.held = 0  # requests that have chosen it and go on
        self.used = 0.0  # when one last did so or ended, by time.monotonic

    def update(self, state: ModelState) -> None:
        self._state = state
        self.engine.update(state)

    @property
    def adapters(self) -> list[AdapterInfo]:
        """None while nothing calls it by a name."""
        return self._state.adapters if self._state.names else []

    def adapted(self, info: AdapterInfo) -> Model:
        """This model with one of its adapters, which has the adapter's names; for one request."""
        other = copy.copy(self)
        other.adapter, other.parent = info.name, self.name
        other.digest, other.created = info.digest, info.created
        return other

    def hold(self) -> None:
        self.held += 1
        self.used = time.monotonic()

    def let_go(self) -> None:
        self.held -= 1
        self.used = time.monotonic()

    def check(self) -> None:
        """Raises Unavailable when a request could not even be tokenised."""
        if self.trouble:
            why = f"Model {self.name} cannot be served: {self.trouble}"
            raise Unavailable(why, code="model_failed", retry_after=RETRY_AFTER_FAILED)
        if not self.prepared:
            why = f"Model {self.name} is loading; try again."
            raise Unavailable(why, code="model_not_ready", retry_after=RETRY_AFTER)

    @property
    def build(self) -> int:
        """The number by which the supervisor knows it."""
        return self._state.id

    @property
    def name(self) -> str:
        return self.adapter or self._state.name

    @property
    def names(self) -> list[str]:
        """What clients call it now: its own name and its aliases."""
        named = self._state.names
        return [self.adapter, *(f"{one}:{self.adapter}" for one in named)] if self.adapter else named

    @property
    def awaited_by(self) -> list[str]:
        """Names that it takes over once it is ready."""
        return self._state.awaited_by

    @property
    def state(self) -> str:
        """As ModelState has it, but "ready" only when it is so in this worker, too."""
        if self._state.state == "ready" and not self.prepared:
            return "failed" if self.trouble else "loading"
        return self._state.state

    @property
    def needed(self) -> bool:
        """Whether the server is not ready without it."""
        return self._state.needed

    @property
    def reason(self) -> str:
        """Why it failed or is being restarted: one sentence, or nothing."""
        return self.trouble or self._state.reason

    @property
    def replicas(self) -> list[EngineState]:
        return self._state.replicas

    @property
    def fraction(self) -> float:
        """How far loading has come, 0 to 1."""
        return sum(one.fraction for one in self.replicas) / max(1, len(self.replicas))

    @property
    def stage(self) -> str:
        """Of loading: "loading" | "checking"; nothing when it is over."""
        return next((one.stage for one in self.replicas if one.stage), "")

    @property
    def restarts(self) -> int:
        return sum(one.restarts for one in self.replicas)

    @property
    def max_context(self) -> int:
        """Tokens of prompt and answer together, as its engines are started."""
        return self._state.max_context

    @property
    def info(self) -> EngineInfo | None:
        """Of one of its engines that can answer."""
        return next((one.info for one in self.replicas if one.info is not None), None)

    @cached_property
    def text(self) -> text.TextModel:
        """Tokenizer and template; loaded when first wanted."""
        return text.load(self.bundle)

    def prepare(self) -> None:
        """Load what its first request would wait for; takes a while. Raises BundleError."""
        assert self.text
        if self.manifest.encoder is not None:
            importlib.import_module("basert.vectors")
        if self.manifest.speech is not None:
            for module in ("alignment", "features", "voice", "words"):
                importlib.import_module(f"basert.audio.{module}")
        self.prepared = True
