"""The HTTP client against servers that answer well, badly, in odd pieces, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from basert.client import Client, RequestFailed

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Start = Callable[[Handler], Awaitable[Client]]


@pytest.fixture
async def client_of() -> AsyncIterator[Start]:
    """Starts a server whose every route is `handler`, and a client for it."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(handler: Handler) -> Client:
            app = web.Application()
            app.router.add_route("*", "/{tail:.*}", handler)
            server = await stack.enter_async_context(TestServer(app, host="127.0.0.1"))
            return await stack.enter_async_context(Client(str(server.make_url("/v1"))))

        yield start


def streaming(*pieces: bytes, seen: asyncio.Event | None = None) -> Handler:
    """Writes the pieces one by one; sets `seen` when the client hangs up before the end."""

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        try:
            for piece in pieces:
                await answer.write(piece)
                await asyncio.sleep(0)
            if seen is not None:
                await asyncio.Event().wait()
        except (asyncio.CancelledError, ConnectionResetError):
            assert seen is not None
            seen.set()
            raise
        return answer

    return handler


async def text_of(client: Client) -> str:
    return "".join([chunk.text async for chunk in client.stream("/v1/completions", {})])


async def test_events_are_found_wherever_the_stream_is_cut(client_of: Start) -> None:
    stream = (
        ': keep-alive\n\ndata: {"choices":[{"text":"grü"}]}\n\n'
        'data: {"choices":[{"index":0,"delta":{"content":"ße"}}]}\r\n\r\n'
        'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
    ).encode()
    client = await client_of(streaming(*(stream[i : i + 1] for i in range(len(stream)))))
    assert await text_of(client) == "grüße"


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ((b'data: {"choices":[{"text":"a"}]}\n\n',), "ended its answer early"),
        (
            (b'data: {"error":{"message":"the engine is gone","code":"engine_failed"}}\n\n',),
            "the engine is gone",
        ),
    ],
)
async def test_a_stream_without_its_end_is_an_error(
    client_of: Start, pieces: tuple[bytes, ...], reason: str
) -> None:
    with pytest.raises(RequestFailed, match=reason):
        await text_of(await client_of(streaming(*pieces)))


async def test_a_finished_stream_leaves_its_connection_for_the_next(client_of: Start) -> None:
    peers = set()
    stream = streaming(b'data: {"choices":[{"text":"a"}]}\n\n', b"data: [DONE]\n\n")

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return await stream(request)

    client = await client_of(handler)
    assert [await text_of(client) for _ in range(3)] == ["a", "a", "a"]
    assert len(peers) == 1


async def test_closing_a_stream_hangs_up(client_of: Start) -> None:
    gone = asyncio.Event()
    client = await client_of(streaming(b'data: {"choices":[{"text":"a"}]}\n\n', seen=gone))
    stream = client.stream("/v1/completions", {})
    assert (await anext(stream)).text == "a"
    await stream.aclose()
    await gone.wait()


async def test_refusals_carry_the_servers_words(client_of: Start) -> None:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response(
            {"error": {"message": "too long", "code": "context_length_exceeded"}}, status=400
        )

    with pytest.raises(RequestFailed, match="too long") as raised:
        await (await client_of(refuse)).post("/v1/completions", {})
    assert (raised.value.http_status, raised.value.code) == (400, "context_length_exceeded")


async def test_a_server_of_another_kind_is_named_as_such(client_of: Start) -> None:
    async def page(_: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>", status=502)

    with pytest.raises(RequestFailed, match="answered 502, not as an OpenAI server"):
        await (await client_of(page)).models()


async def test_a_page_is_no_answer(client_of: Start) -> None:
    async def page(_: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>")

    client = await client_of(page)
    for asked in (client.models(), client.model("tiny"), client.post("/v1/tokenize", {})):
        with pytest.raises(RequestFailed, match="does not answer as an OpenAI server would"):
            await asked


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "ftp://127.0.0.1"])
async def test_no_server_is_one_sentence(url: str) -> None:
    async with Client(url) as client:
        with pytest.raises(RequestFailed, match=r"nothing answers|is no address"):
            await client.models()
