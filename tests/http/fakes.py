"""A registry of models that needs no processes: the tiny bundle's text over an engine that replays a script.

Plays the interface of basert.http.models and basert.http.engine_client; the wire is tested with it. What
depends on processes is tested with real servers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from falcon.asgi import App

from basert import manifest, text
from basert.config import AppConfig
from basert.errors import InvalidRequest, ModelNotFound, Unavailable
from basert.http.app import create_app
from basert.messages import (
    BucketStats,
    Encode,
    EngineInfo,
    EngineState,
    Histogram,
    Order,
    Sampling,
    Stats,
    Submit,
    TokenLogprob,
    Tokens,
    Vectors,
)
from engines.sessions.testing import EncoderScript, values_of
from tests.tiny import ENCODER_GRAPH, SENTENCE, write_testing_bundle, write_testing_encoder
from tests.tiny_speech import SPOKEN, write_testing_speech


class FakeEngine:
    """Says SENTENCE, or what it is told to; raises `error` after `error_after` tokens; waits for `gate`
    before the first."""

    def __init__(self, model: FakeModel) -> None:
        self._model = model
        self.says = SENTENCE
        self.error: Exception | None = None
        self.error_after = 0
        self.gate: asyncio.Event | None = None
        self.submitted: list[tuple[list[int], Sampling]] = []
        self.requests: list[Submit] = []
        self.encoded: list[Encode] = []
        self.open = 0

    async def generate(self, request: Submit) -> AsyncGenerator[Tokens, None]:
        prompt, max_tokens, logprobs = request.prompt, request.max_tokens, request.logprobs
        self.submitted.append((prompt, request.sampling))
        self.requests.append(request)
        self.open += 1
        try:
            if self.gate is not None:
                await self.gate.wait()
            scored = (
                [_logprob(token, request.prompt_logprobs) for token in prompt[1:]]
                if request.prompt_logprobs >= 0
                else []
            )
            if not max_tokens:
                yield Tokens(id=1, finish="length", prompt_logprobs=scored)
                return
            end = self._model.manifest.eos_token_ids[0]
            script = [*self._model.text.encode(self.says), end]
            for n, token in enumerate(script[:max_tokens]):
                if self.error is not None and n == self.error_after:
                    raise self.error
                await asyncio.sleep(0)
                ended = token == end or token in request.stop_ids
                finish = "stop" if ended else "length" if n + 1 == max_tokens else ""
                chosen = [_logprob(token, logprobs)] if logprobs >= 0 else []
                yield Tokens(id=1, tokens=[token], finish=finish, logprobs=chosen, prompt_logprobs=scored)
                scored = []
                if finish:
                    return
        finally:
            self.open -= 1

    async def encode(self, request: Encode) -> AsyncGenerator[Vectors, None]:
        """Two inputs at a time, the last ones first. A row is what the testing session answers."""
        self.encoded.append(request)
        self.open += 1
        script = msgspec.json.decode((self._model.bundle / ENCODER_GRAPH).read_bytes(), type=EncoderScript)
        types = request.token_types or [None] * len(request.inputs)
        try:
            if self.gate is not None:
                await self.gate.wait()
            waiting = list(range(len(request.inputs)))
            while waiting:
                if self.error is not None and len(self.encoded) > self.error_after:
                    raise self.error
                await asyncio.sleep(0)
                batch, waiting = waiting[-2:], waiting[:-2]
                rows = [values_of(script, request.inputs[i], types[i]) for i in batch]
                data = np.stack(rows).astype("<f4").tobytes()
                yield Vectors(id=1, indices=batch, data=data, last=not waiting)
        finally:
            self.open -= 1

    async def stats(self, _engine: int = 1) -> Stats:
        if self._model.state != "ready":
            raise Unavailable("The model is not ready.")
        if self._model.manifest.encoder is None:
            return Stats(slots=4, running=self.open, padded_tokens=7)
        buckets = [
            BucketStats(1, 16),
            BucketStats(4, 32, runs=3, inputs=9, input_tokens=200, run_seconds=0.5),
        ]
        return Stats(buckets=buckets, input_tokens=Histogram([16, 32], [2, 5, 9], 200))


class Said(NamedTuple):
    """What a fake speech model answers to a window. finish: "length" means that it breaks off there."""

    text: str
    logprob: float = -0.25
    no_speech: float = 0.01
    finish: str = "stop"
    language: str = "de"


class FakeEars:
    """The engine of a speech model: says `answer(request)`, or after `error_after` requests raises `error`.
    Waits for `gate` before its first token."""

    def __init__(self, model: FakeModel) -> None:
        self._model = model
        self.answer: Callable[[Submit], Said] = lambda _: Said(SPOKEN[0])
        self.error: Exception | None = None
        self.error_after = 0
        self.gate: asyncio.Event | None = None
        self.requests: list[Submit] = []
        self.open = self.most_open = 0

    async def generate(self, request: Submit) -> AsyncGenerator[Tokens, None]:
        self.requests.append(request)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await (self.gate.wait() if self.gate is not None else asyncio.sleep(0))
            if self.error is not None and len(self.requests) > self.error_after:
                raise self.error
            said = self.answer(request)
            ids = self._ids(said, request)
            for n, token in enumerate(ids):
                await asyncio.sleep(0)
                yield Tokens(
                    id=1,
                    tokens=[token],
                    finish=said.finish if n + 1 == len(ids) else "",
                    logprobs=[TokenLogprob(token, said.logprob)] if request.logprobs >= 0 else [],
                    no_speech=-1.0 if n else said.no_speech,
                    alignment=self._attention(n, len(ids), request),
                )
        finally:
            self.open -= 1

    def _ids(self, said: Said, request: Submit) -> list[int]:
        manifest = self._model.manifest
        assert manifest.speech is not None
        if request.allowed_ids:
            return [manifest.speech.languages[said.language]]
        assert request.sound is not None
        ids = self._model.text.encode(said.text, add_special=False)
        if not request.sound.timestamps:
            ids = [token for token in ids if token < manifest.speech.timestamp_begin]
        return [*ids, *([manifest.eos_token_ids[0]] if said.finish == "stop" else [])]

    def _attention(self, n: int, count: int, request: Submit) -> bytes:
        """Each token looks at the tenth of a second with its number."""
        speech = self._model.manifest.speech
        assert speech is not None
        assert request.sound is not None
        if not request.sound.alignment:
            return b""
        table = np.full((1, speech.alignment_heads, speech.frames), 1e-3, "<f2")
        table[..., 5 * n : 5 * n + 5] = 0.2
        return table.tobytes()

    async def stats(self, _engine: int = 1) -> Stats:
        return Stats(slots=4, running=self.open)


def _logprob(token: int, top: int) -> TokenLogprob:
    return TokenLogprob(token, -0.25, [(token, -0.25), (0, float("-inf"))][:top])


class FakeModel:
    adapter = parent = ""

    def __init__(self, bundle: Path, name: str, alias: str = "") -> None:
        self.name = name
        self.names = [name, alias] if alias else [name]
        self.needed = True
        self.stage = ""
        self.bundle = bundle
        self.manifest = manifest.read_manifest(bundle)
        self.digest = manifest.digest(bundle)
        self.state, self.reason, self.fraction, self.restarts, self.created = (
            "ready",
            "",
            1.0,
            0,
            1_700_000_000,
        )
        self.info = EngineInfo(name, self.digest, "none", 4, self.manifest.max_context, 0, 8, 1, 0.0)
        self.replicas = [EngineState(1, "ready", info=self.info)]
        self.text = text.load(bundle)
        self.engine: Any = FakeEngine(self) if self.manifest.speech is None else FakeEars(self)


class FakeOrders:
    """Carries nothing out, keeps what was ordered; raises `error`."""

    def __init__(self) -> None:
        self.given: list[Order] = []
        self.error: Exception | None = None

    async def give(self, order: Callable[[int], Order]) -> None:
        self.given.append(order(1))
        if self.error is not None:
            raise self.error


class FakeModels:
    def __init__(self, folder: Path, name: str = "org/tiny", max_context: int = 256) -> None:
        self._folder = folder
        self.model = FakeModel(write_testing_bundle(folder, max_context=max_context), name, "alias")
        self.others: list[FakeModel] = []
        self.orders = FakeOrders()
        self.draining = False
        self.on_reload: list[Callable[[], None]] = []

    def add_encoder(self, name: str = "encoder", **options: Any) -> FakeModel:
        """options: of write_testing_encoder."""
        return self._add(FakeModel(write_testing_encoder(self._folder, name=name, **options), name))

    def add_speech(self, name: str = "whisper", **options: Any) -> FakeModel:
        """options: of write_testing_speech."""
        return self._add(FakeModel(write_testing_speech(self._folder, name=name, **options), name))

    def _add(self, model: FakeModel) -> FakeModel:
        self.others.append(model)
        return model

    def all(self) -> list[FakeModel]:
        return [self.model, *self.others]

    def adapters(self) -> list[FakeModel]:
        return []

    def successor(self, _name: str) -> None:
        return None

    @contextlib.contextmanager
    def visit(self) -> Iterator[None]:
        yield

    def find(self, name: str | None) -> FakeModel:
        return self.get(name)

    def get(self, name: str | None) -> FakeModel:
        if not name:
            raise InvalidRequest("you must provide a model parameter", param="model")
        for model in self.all():
            if name in model.names:
                return model
        raise ModelNotFound(f"The model {name!r} is not served here.", param="model")

    @contextlib.contextmanager
    def open_request(self) -> Iterator[None]:
        if self.draining:
            raise Unavailable(
                "The server is shutting down; try again.", code="shutting_down", retry_after=5.0
            )
        yield


def fake_app(models: FakeModels, responses: Path | None = None, **settings: object) -> App:
    return create_app(AppConfig(**settings), models, responses)  # type: ignore[arg-type]
