"""What a request may weigh: the size of its body, the time to send it, the length of its prompt.

Header limits are gunicorn's, the nesting of JSON is basert.schema.parsing's.
"""

from __future__ import annotations

import asyncio
import contextlib

from falcon.asgi import Request

from basert.config import AppConfig
from basert.errors import ContextLengthExceeded, InvalidRequest, PayloadTooLarge, RequestTimeout
from basert.text import TextModel


async def read_body(req: Request, config: AppConfig) -> bytes:
    """The whole body of a JSON request, never holding more than the limit.

    Raises PayloadTooLarge, RequestTimeout, InvalidRequest (another content type, or a body that broke off).
    """
    kind = (req.content_type or "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise InvalidRequest(f"The body is sent as {kind!r}; send it with Content-Type: application/json.")
    if (req.content_length or 0) > config.max_body_bytes:
        raise _too_large(config)
    try:
        async with asyncio.timeout(config.body_timeout):
            raw = await _read(req, config)
    except TimeoutError:
        raise RequestTimeout(
            f"The request body did not arrive within {config.body_timeout:g} seconds.", code="body_timeout"
        ) from None
    if len(raw) < (req.content_length or 0):
        raise InvalidRequest("The request body broke off before its Content-Length.")
    return raw


async def _read(req: Request, config: AppConfig) -> bytes:
    chunks, size = [], 0
    async for chunk in req.stream:
        size += len(chunk)
        if size > config.max_body_bytes:
            raise _too_large(config)
        chunks.append(chunk)
    return b"".join(chunks)


async def discard_body(req: Request, seconds: float) -> None:
    """Read and forget what is left of a body, for a while.

    A client that is still sending when its connection is closed may never see why it was refused.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await req.stream.exhaust()


def _too_large(config: AppConfig) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The request body is larger than {config.max_body_bytes} bytes, the most taken here."
    )


def check_prompt_text(text: str, model: TextModel, context: int, config: AppConfig, param: str) -> None:
    """Refuse before tokenizing what cannot fit however it is tokenized. Raises InvalidRequest."""
    check_prompt_size(text, config, param)
    least = len(text) // model.longest_token
    if least > context:
        raise too_long(context, f"at least {least}", param)


def check_prompt_size(text: str, config: AppConfig, param: str, what: str = "The prompt") -> None:
    """Raises InvalidRequest for a text that is not even tokenized."""
    if len(text) > config.max_prompt_bytes:
        raise InvalidRequest(
            f"{what} has {len(text)} characters; the most taken here is {config.max_prompt_bytes}.",
            param=param,
        )


def room_after(prompt: list[int], context: int, param: str) -> int:
    """Tokens that may follow a prompt. Raises ContextLengthExceeded, InvalidRequest for an empty one."""
    if not prompt:
        raise InvalidRequest("The prompt is empty: it has no tokens.", param=param)
    if len(prompt) > context:
        raise too_long(context, str(len(prompt)), param)
    return context - len(prompt)


def too_long(
    context: int, tokens: str, param: str, what: str = "your prompt", mend: str = "shorten it"
) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"This model's maximum context length is {context} tokens. However, {what} has {tokens} tokens. "
        f"Please {mend}.",
        param=param,
    )
