"""The adapters (LoRA) that a decoder's engine has: loaded beside what runs, let go when nobody uses them.

Knows bundles and who uses what; neither graph nor socket. A thread reads, checks and writes an adapter's
factors, and opens the graph that takes adapters when the first one comes: streams go on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from basert.adapter import FACTORS, check_base, digest, lora_of, read_adapter
from basert.errors import BasertError, BundleError
from basert.manifest import Manifest
from basert.messages import AdapterDone, AdapterInfo, LoadAdapter, UnloadAdapter
from engines.factors import Factors
from engines.sessions import Session
from engines.units import Units, free_stretch

ROOM = 8  # units for each adapter that there may be: rank 64 if a unit is 8; one may take more, others less

_log = logging.getLogger(__name__)

Asker = tuple[int, int]  # peer, number of its message
Open = Callable[[], Session]


@dataclass(eq=False)
class Adapter:
    """One that is loaded, or on its way in (not `ready`) or out (`leaving` is set)."""

    info: AdapterInfo
    units: Units
    ready: bool = False
    users: int = 0  # requests
    leaving: list[Asker] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.info.name


class Adapters:
    """The table of them."""

    def __init__(self, manifest: Manifest, most: int, open_graph: Open, wake: Callable[[], None]) -> None:
        """most: that may be loaded at once. open_graph: raises BundleError. wake: see Start."""
        self.session: Session | None = None  # the graph that takes adapters, from the first one on
        self._manifest, self._most = manifest, most
        self._open, self._wake = open_graph, wake
        self._factors: Factors | None = None
        self._table: dict[str, Adapter] = {}
        self._loading: dict[Adapter, tuple[Asker, Future[None]]] = {}
        self._done: list[tuple[int, AdapterDone]] = []
        self._thread: ThreadPoolExecutor | None = None

    @property
    def factors(self) -> Factors:
        if self._factors is None:
            self._factors = Factors(lora_of(self._manifest), max(1, self._most) * ROOM)
        return self._factors

    @property
    def loaded(self) -> list[AdapterInfo]:
        return [adapter.info for adapter in self._table.values() if adapter.ready]

    def take(self, name: str) -> Adapter | None:
        """The adapter for one more request; None when there is none of that name."""
        adapter = self._table.get(name)
        if adapter is None or not adapter.ready or adapter.leaving:
            return None
        adapter.users += 1
        return adapter

    def give_back(self, adapter: Adapter) -> None:
        """A request that used it is over."""
        adapter.users -= 1
        if adapter.leaving and not adapter.users:
            self._remove(adapter)

    def load(self, peer: int, message: LoadAdapter) -> None:
        """Begin to load it; `done` will tell."""
        asker = peer, message.id
        try:
            adapter = self._enter(Path(message.path))
        except BundleError as error:
            self._tell(asker, error.message)
            return
        if adapter.ready:
            self._tell(asker, adapter=adapter.info)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="adapters")
        future = self._thread.submit(self._read, adapter, Path(message.path))
        self._loading[adapter] = asker, future
        future.add_done_callback(lambda _: self._wake())

    def load_now(self, path: Path) -> None:
        """Before anything runs. Raises BundleError."""
        adapter = self._enter(path)
        if not adapter.ready:
            try:
                self._read(adapter, path)
            except BundleError:
                del self._table[adapter.name]
                raise
            adapter.ready = True

    def unload(self, peer: int, message: UnloadAdapter) -> None:
        """Let nobody use it any more, and forget it when the last one has; `done` will tell."""
        adapter = self._table.get(message.name)
        if adapter is None or not adapter.ready:
            self._tell((peer, message.id), _unknown(message.name, self.loaded))
            return
        adapter.leaving.append((peer, message.id))
        if not adapter.users:
            self._remove(adapter)

    def done(self) -> Iterator[tuple[int, AdapterDone]]:
        """What there is to tell peers."""
        for adapter, (asker, future) in list(self._loading.items()):
            if future.done():
                del self._loading[adapter]
                self._finish(adapter, asker, future)
        done, self._done = self._done, []
        yield from done

    def _enter(self, path: Path) -> Adapter:
        """It with a place in the table, ready if it is there already. Raises BundleError."""
        bundle = read_adapter(path)
        lora = check_base(bundle, self._manifest)
        info = AdapterInfo(bundle.name, str(path), digest(path), bundle.created)
        if there := self._table.get(info.name):
            if there.ready and not there.leaving and there.info.digest == info.digest:
                return there
            if not there.ready:
                raise BundleError(f"the adapter {info.name} is being loaded; wait until it is.")
            raise BundleError(f"an adapter {info.name} is loaded; unload that one first.")
        if len(self._table) >= self._most:
            raise BundleError(
                f"{len(self._table)} adapters are loaded, and this server was started for {self._most}; "
                "unload one, or start it with a larger --max-loras."
            )
        adapter = Adapter(info, self._place(info.name, bundle.units, bundle.units * lora.unit))
        self._table[info.name] = adapter
        return adapter

    def _place(self, name: str, units: int, rank: int) -> Units:
        taken = (adapter.units for adapter in self._table.values())
        place = free_stretch(taken, units, self.factors.units)
        if place is None:
            raise BundleError(
                f"there is no room for {name}, whose rank is {rank}, beside the adapters that are loaded; "
                "unload one, or start the server with a larger --max-loras."
            )
        return place

    def _read(self, adapter: Adapter, path: Path) -> None:
        """In the thread, one at a time. Raises BundleError."""
        [file] = read_adapter(path).files
        try:
            with (path / FACTORS).open("rb") as raw:
                if hashlib.file_digest(raw, "sha256").hexdigest() != file.sha256:
                    raise BundleError(f"{path / FACTORS} was altered; export the adapter again.")
            with np.load(path / FACTORS, allow_pickle=False) as arrays:
                self.factors.write(adapter.units, {name: arrays[name] for name in arrays.files})
        except OSError as error:
            raise BundleError(f"{path / FACTORS} cannot be read: {error.strerror}.") from None
        if self.session is None:
            self.session = self._open()

    def _finish(self, adapter: Adapter, asker: Asker, future: Future[None]) -> None:
        try:
            future.result()
        except BasertError as error:
            del self._table[adapter.name]
            self._tell(asker, f"the adapter {adapter.name} cannot be loaded: {error.message}")
        except Exception:
            _log.exception("the adapter %s could not be loaded", adapter.name)
            del self._table[adapter.name]
            self._tell(asker, f"the adapter {adapter.name} could not be loaded; the engine's log says why.")
        else:
            adapter.ready = True
            _log.info("adapter %s is loaded", adapter.name)
            self._tell(asker, adapter=adapter.info)

    def _remove(self, adapter: Adapter) -> None:
        del self._table[adapter.name]
        _log.info("adapter %s is unloaded", adapter.name)
        for asker in adapter.leaving:
            self._tell(asker)

    def _tell(self, asker: Asker, error: str = "", adapter: AdapterInfo | None = None) -> None:
        peer, number = asker
        self._done.append((peer, AdapterDone(number, error, adapter)))


def _unknown(name: str, loaded: list[AdapterInfo]) -> str:
    names = ", ".join(one.name for one in loaded) or "none"
    return f"no adapter {name!r} is loaded; there is {names}."
