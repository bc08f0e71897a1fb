"""As much of OpenAI's completions as the client asks for, before an engine that knows only token ids.

Every token leaves as it comes. Knows HTTP and detokenising; the engine is somebody else's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

LEAVE_SECONDS = 0.1  # at most; a client that reads slowly holds up nobody
Step = tuple[list[int], bool]  # new token ids, and whether these were the last


@dataclass(eq=False)
class Request:
    """One sequence on its way. The engine calls `push` from a thread of its own."""

    id: int
    prompt: list[int]
    max_tokens: int
    ignore_eos: bool
    loop: asyncio.AbstractEventLoop
    steps: asyncio.Queue[Step] = field(default_factory=asyncio.Queue)

    def push(self, ids: list[int], last: bool) -> None:
        self.loop.call_soon_threadsafe(self.steps.put_nowait, (ids, last))


def let_leave(loop: asyncio.AbstractEventLoop) -> None:
    """Wait, off the loop, until what was pushed is written out.

    For engines whose step holds the interpreter lock: their tokens would leave a step late, and in bursts.
    The loop takes three turns: one hears of the tokens, one writes them, the third says so.
    """
    written = threading.Event()
    loop.call_soon_threadsafe(loop.call_soon, loop.call_soon, written.set)
    written.wait(LEAVE_SECONDS)


class Engine(ABC):
    @abstractmethod
    def submit(self, request: Request) -> None:
        """From the event loop; returns at once."""

    @abstractmethod
    def cancel(self, request: Request) -> None:
        """Nobody reads it any more; it may be over already."""


class Front:
    def __init__(self, engine: Engine, tokenizer: Path, name: str) -> None:
        self._engine, self._name = engine, name
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._numbers = itertools.count()

    def serve(self, port: int) -> None:
        """Until SIGTERM."""
        app = web.Application(client_max_size=1 << 24)
        app.add_routes([web.get("/v1/models", self._models), web.post("/v1/completions", self._completions)])
        web.run_app(app, host="127.0.0.1", port=port, print=None, shutdown_timeout=1, access_log=None)

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self._name, "object": "model"}]})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        sequence = Request(
            next(self._numbers),
            body["prompt"],
            body["max_tokens"],
            body.get("ignore_eos", False),
            asyncio.get_running_loop(),
        )
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        self._engine.submit(sequence)
        try:
            await self._stream(sequence, answer)
        finally:
            self._engine.cancel(sequence)
        return answer

    async def _stream(self, sequence: Request, answer: web.StreamResponse) -> None:
        decode, count, last = DecodeStream(skip_special_tokens=False), 0, False
        while not last:
            ids, last = await sequence.steps.get()
            count += len(ids)
            text = "".join(decode.step(self._tokenizer, one) or "" for one in ids)
            await answer.write(_event({"choices": [{"index": 0, "text": text}]}))
        usage = {"prompt_tokens": len(sequence.prompt), "completion_tokens": count}
        await answer.write(_event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"
