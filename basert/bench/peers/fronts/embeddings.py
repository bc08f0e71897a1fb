"""As much of OpenAI's embeddings as the client asks for, before a library that encodes lists of texts.

One request after the other, each in a call of its own: what a thin server around the library would do.
POST /inside does the same without a server in between: it answers how long encoding its texts took.
Knows HTTP; the library is somebody else's.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Encoder(ABC):
    session_seconds = 0.0  # in the runtime, without tokenising, since it started; 0 where that is not known

    @abstractmethod
    def encode(self, texts: list[str]) -> Vectors:
        """[texts, width], of length 1. Called from one thread at a time."""


class Front:
    def __init__(self, encoder: Encoder, name: str) -> None:
        self._encoder, self._name = encoder, name
        self._thread = ThreadPoolExecutor(1)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 26)
        app.add_routes(
            [
                web.get("/v1/models", self._models),
                web.post("/v1/embeddings", self._embeddings),
                web.post("/inside", self._inside),
            ]
        )
        return app

    def serve(self, port: int) -> None:
        """Until SIGTERM."""
        web.run_app(self.app(), host="127.0.0.1", port=port, print=None, shutdown_timeout=1, access_log=None)

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self._name, "object": "model"}]})

    async def _embeddings(self, request: web.Request) -> web.Response:
        texts = _texts(await request.json())
        vectors = await self._call(self._encoder.encode, texts)
        data = [
            {"object": "embedding", "index": index, "embedding": base64.b64encode(vector.tobytes()).decode()}
            for index, vector in enumerate(vectors)
        ]
        return web.json_response({"object": "list", "model": self._name, "data": data, "usage": {}})

    async def _inside(self, request: web.Request) -> web.Response:
        """Calls of `inputs` texts each: the seconds of each, and those of them in the runtime."""
        body = await request.json()
        return web.json_response(await self._call(self._time, body["input"], body["inputs"]))

    def _time(self, texts: list[str], inputs: int) -> dict[str, list[float]]:
        seconds, session = [], []
        for start in range(0, len(texts), inputs):
            before, began = self._encoder.session_seconds, time.perf_counter()
            self._encoder.encode(texts[start : start + inputs])
            seconds.append(time.perf_counter() - began)
            session.append(self._encoder.session_seconds - before)
        return {"seconds": seconds, "session_seconds": session}

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def _texts(body: dict[str, Any]) -> list[str]:
    """Of a request; it wants base64, as the SDKs do."""
    if body.get("encoding_format") != "base64":
        raise web.HTTPBadRequest(text="this front answers in base64 only.")
    given = body["input"]
    return [given] if isinstance(given, str) else given


def main(make: Callable[[argparse.Namespace], Encoder], *more: str) -> None:
    """Serve what `make` makes of the command line, or encode the texts of a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    for name in more:
        parser.add_argument(f"--{name}", required=True)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int)
    where.add_argument("--write", type=Path, help="float32 vectors of --texts")
    parser.add_argument("--texts", type=Path, help="a JSON list")
    parser.add_argument("--name", default="model")
    args = parser.parse_args()
    encoder = make(args)
    if args.write:
        args.write.write_bytes(encoder.encode(json.loads(args.texts.read_text())).tobytes())
    else:
        Front(encoder, args.name).serve(args.port)
