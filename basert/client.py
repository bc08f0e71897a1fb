"""The command line's HTTP client: OpenAI requests out, decoded answers and server-sent events in.

Knows the wire, not the terminal and not the clock: `basert chat`, `complete` and `bench` all go through it.
It is also what measures, so a chunk costs one split and one typed decode, and nothing is buffered: a chunk
is yielded when its bytes have come.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import IO, Any, Self

import aiohttp
import msgspec

from basert.errors import BasertError

CONNECT_SECONDS = 10.0
_DONE = b"[DONE]"


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class ChunkChoice(msgspec.Struct, frozen=True):
    index: int = 0
    text: str = ""  # /v1/completions
    delta: Delta = Delta()  # /v1/chat/completions
    finish_reason: str | None = None


class Embedding(msgspec.Struct, frozen=True):
    embedding: str  # base64 of float32, little-endian
    index: int = 0


class Embeddings(msgspec.Struct, frozen=True):
    """An answer of /v1/embeddings."""

    data: list[Embedding]
    usage: Usage = Usage()


class ErrorBody(msgspec.Struct, frozen=True):
    message: str = "no reason given"
    code: str | int | None = None


class Hearing(msgspec.Struct, frozen=True):
    """One event of a transcription's stream; what is None a server of another make does not say."""

    type: str = ""
    delta: str = ""
    end: float | None = None  # seconds of the recording that are heard
    duration: float | None = None  # seconds of the recording
    error: ErrorBody | None = None
    raw: bytes = b""  # the event as it came


class Word(msgspec.Struct, frozen=True):
    """Of a transcript; seconds of the recording."""

    start: float
    end: float
    word: str


class Segment(msgspec.Struct, frozen=True):
    """Likewise. Some servers have words here."""

    start: float
    end: float
    text: str = ""
    words: list[Word] = []


class Transcript(msgspec.Struct, frozen=True):
    """An answer of /v1/audio/transcriptions, or the last event of its stream."""

    text: str
    segments: list[Segment] = []
    words: list[Word] = []

    @classmethod
    def read(cls, raw: bytes) -> Transcript:
        """Raises RequestFailed where it is none."""
        try:
            return _decode_transcript(raw)
        except msgspec.MsgspecError:
            raise RequestFailed("it answered no transcript.") from None


class Progress(msgspec.Struct, frozen=True):
    """How far a model is loaded."""

    percent: int = 0


class ModelCard(msgspec.Struct, frozen=True):
    """An entry of /v1/models; what is None a server of another make does not say."""

    id: str
    max_model_len: int | None = None  # tokens of prompt and answer together
    system_fingerprint: str | None = None  # the build
    task: str | None = None  # "generate" | "embed" | "rerank" | "classify" | "transcribe"
    percent: int = 0  # of loading
    next: Progress | None = None  # of the build that is to follow
    parent: str | None = None  # of an adapter: the model that it changes


class _ModelList(msgspec.Struct, frozen=True):
    data: list[ModelCard]


class Chunk(msgspec.Struct, frozen=True):
    """One event of a stream. `text` is what it adds to the first choice."""

    choices: list[ChunkChoice] = []
    usage: Usage | None = None
    error: ErrorBody | None = None

    @property
    def text(self) -> str:
        return "".join(choice.text or choice.delta.content or "" for choice in self.choices)


class RequestFailed(BasertError):
    """The server refused a request or broke off its answer. `http_status` is 0 when no answer came."""

    def __init__(self, message: str, *, http_status: int = 0, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.http_status = http_status


class _ErrorAnswer(msgspec.Struct, frozen=True):
    error: ErrorBody


_decode_embeddings = msgspec.json.Decoder(Embeddings).decode
_decode_chunk = msgspec.json.Decoder(Chunk).decode
_decode_hearing = msgspec.json.Decoder(Hearing).decode
_decode_transcript = msgspec.json.Decoder(Transcript).decode
_decode_error = msgspec.json.Decoder(_ErrorAnswer).decode


class Client:
    """Talks to one server. `url` may end in /v1 or not; every method raises RequestFailed."""

    def __init__(self, url: str, api_key: str | None = None, *, keep_alive: bool = True) -> None:
        """Without keep_alive each request has its own connection, for servers that close idle ones early."""
        self.url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._keep_alive = keep_alive
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            # as many streams at once as the caller opens
            connector=aiohttp.TCPConnector(limit=0, force_close=not self._keep_alive),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def get(self, path: str) -> bytes:
        async with self._request("GET", path) as answer:
            return await answer.read()

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        async with self._request("POST", path, body) as answer:
            return msgspec.json.decode(await answer.read())

    async def embed(self, body: dict[str, Any]) -> Embeddings:
        """`body` asks for base64."""
        async with self._request("POST", "/v1/embeddings", body) as answer:
            return _decode_embeddings(await answer.read())

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[Chunk]:
        """Chunks as they come. Closing the generator hangs up, which cancels the request at the server."""
        async with (
            self._request("POST", path, {**body, "stream": True}) as answer,
            contextlib.aclosing(_events(answer)) as events,
        ):
            async for data in events:
                if data == _DONE:
                    await answer.read()  # to the end, so that the connection serves the next request
                    return
                chunk = _decode_chunk(data)
                _check(chunk.error)
                yield chunk
        raise self._early_end()

    async def transcribe(
        self,
        path: str,
        file: IO[bytes],
        name: str,
        fields: Sequence[tuple[str, str]],
        *,
        stream: bool = True,
    ) -> AsyncGenerator[Hearing]:
        """What is heard as it comes, last the event of the whole. `fields`: of the form, without `stream`.

        A server that does not stream, or is not to, is told by an event without a type, whose `raw` is its
        answer.
        """
        form = aiohttp.FormData([*fields, *([("stream", "true")] if stream else [])])
        form.add_field("file", file, filename=name)
        async with self._request("POST", path, form=form) as answer:
            if answer.content_type != "text/event-stream":
                yield Hearing(raw=await answer.read())
                return
            async with contextlib.aclosing(_events(answer)) as events:
                async for data in events:
                    if data == _DONE:
                        continue
                    heard = msgspec.structs.replace(_decode_hearing(data), raw=data)
                    _check(heard.error)
                    yield heard
                    if heard.type == "transcript.text.done":
                        await answer.read()
                        return
        raise self._early_end()

    def _early_end(self) -> RequestFailed:
        return RequestFailed(f"{self.url} ended its answer early; see the server's log.")

    async def model(self, name: str) -> ModelCard:
        async with self._request("GET", f"/v1/models/{name}") as answer:
            return msgspec.json.decode(await answer.read(), type=ModelCard)

    async def models(self) -> list[ModelCard]:
        async with self._request("GET", "/v1/models") as answer:
            return msgspec.json.decode(await answer.read(), type=_ModelList).data

    @contextlib.asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        form: aiohttp.FormData | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        assert self._session is not None, "a Client is used inside `async with`"
        data = form if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            async with self._session.request(method, self.url + path, data=data, headers=headers) as answer:
                if answer.status >= 400:
                    raise _refusal(answer.status, await answer.read(), self.url + path)
                yield answer
        except aiohttp.ClientConnectorError as error:
            raise RequestFailed(
                f"nothing answers at {self.url} ({error.os_error.strerror}); start one, or mend --url."
            ) from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise RequestFailed(
                f"{self.url!r} is no address of a server; write it as http://HOST:PORT."
            ) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RequestFailed(f"{self.url} broke off its answer ({error}); see the server's log.") from None
        except msgspec.MsgspecError:
            raise RequestFailed(
                f"{self.url} does not answer as an OpenAI server would; mend --url."
            ) from None


async def _events(answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    """The data of server-sent events, each on one line."""
    tail = b""
    async for block in answer.content.iter_any():
        *lines, tail = (tail + block).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):  # else a blank line, a name, or a comment that keeps the connection
                yield line[5:].strip()


def _check(error: ErrorBody | None) -> None:
    if error is not None:
        raise RequestFailed(error.message, code=_text(error.code))


def _refusal(status: int, body: bytes, url: str) -> RequestFailed:
    try:
        error = _decode_error(body).error
    except msgspec.MsgspecError:
        return RequestFailed(
            f"{url} answered {status}, not as an OpenAI server would; mend --url.", http_status=status
        )
    return RequestFailed(error.message, http_status=status, code=_text(error.code))


def _text(code: str | int | None) -> str | None:
    return None if code is None else str(code)
