"""As much of OpenAI's transcriptions as the client asks for, before a library that transcribes files.

As many requests at a time as the library has workers, each in a call of its own: what a thin server around
the library would do. Knows HTTP; the library is somebody else's.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web

LARGEST = 1 << 28  # bytes


class Transcriber(ABC):
    workers = 1  # calls at a time

    @abstractmethod
    def transcribe(self, sound: bytes, *, segments: bool, words: bool) -> dict[str, Any]:
        """`text`; with `segments` and `words` those with their times. Called from `workers` threads."""


class Front:
    def __init__(self, transcriber: Transcriber, name: str) -> None:
        self._transcriber, self._name = transcriber, name
        self._threads = ThreadPoolExecutor(transcriber.workers)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=LARGEST)
        app.add_routes(
            [
                web.get("/v1/models", self._models),
                web.post("/v1/audio/transcriptions", self._transcriptions),
            ]
        )
        return app

    def serve(self, port: int) -> None:
        """Until SIGTERM."""
        web.run_app(self.app(), host="127.0.0.1", port=port, print=None, shutdown_timeout=1, access_log=None)

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self._name, "object": "model"}]})

    async def _transcriptions(self, request: web.Request) -> web.Response:
        form = await request.post()
        sound = form["file"]
        assert isinstance(sound, web.FileField)
        verbose = form.get("response_format") == "verbose_json"
        words = "word" in form.getall("timestamp_granularities[]", [])
        answer = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._transcribe, sound.file.read(), verbose, words
        )
        return web.json_response(answer)

    def _transcribe(self, sound: bytes, segments: bool, words: bool) -> dict[str, Any]:
        return self._transcriber.transcribe(sound, segments=segments, words=words)
