"""`basert chat`: a conversation on the terminal. Knows the conversation; the server keeps nothing of it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from basert.cli.options import Target, connect, connection_options, request_fields, sampling_options
from basert.client import Chunk, Client, RequestFailed

MAX_TOKENS = 1024  # a small model may never stop by itself
HELP = """/clear        forget the conversation (the system message stays)
/system TEXT  set the system message; without TEXT, remove it
/help         this list
/exit         leave, as Ctrl-D does; Ctrl-C stops an answer"""


class Conversation:
    """The messages so far, as the next request sends them."""

    def __init__(self, system: str | None) -> None:
        self.system = system
        self.turns: list[dict[str, str]] = []

    def messages(self, question: str) -> list[dict[str, str]]:
        first = [{"role": "system", "content": self.system}] if self.system else []
        return [*first, *self.turns, {"role": "user", "content": question}]

    def add(self, question: str, answer: str) -> None:
        self.turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


class Answer:
    """One answer while it comes: its text, why it ended, and how fast its tokens came."""

    def __init__(self) -> None:
        self.text = ""
        self.tokens = 0
        self.cut = False
        self._asked = time.perf_counter()
        self._first = self._last = self._asked

    def add(self, chunk: Chunk) -> None:
        if chunk.text:
            self._last = time.perf_counter()
            self._first = self._last if not self.text else self._first
            self.text += chunk.text
            self.tokens += 1  # about one a chunk, until the usage says it exactly
        if chunk.usage is not None:
            self.tokens = chunk.usage.completion_tokens
        self.cut = self.cut or any(choice.finish_reason == "length" for choice in chunk.choices)

    def summary(self) -> str:
        """The rate counts the time after the first token: before it, the prompt was read."""
        wait, writing = self._first - self._asked, self._last - self._first
        rate = f"{(self.tokens - 1) / writing:.1f} tokens/s, " if self.tokens > 1 and writing > 0 else ""
        cut = ", cut there by --max-tokens or the context" if self.cut else ""
        return f"[{self.tokens} tokens{cut}, {rate}first after {wait:.2f} s]"


@click.command("chat")
@connection_options
@click.option("--system", metavar="TEXT", help="The system message.")
@sampling_options(MAX_TOKENS)
def command(
    model: str | None, url: str | None, api_key: str | None, system: str | None, **flags: Any
) -> None:
    """Talk to MODEL: a bundle's name or path, or a model of the server at --url.

    Without --url, a server is started for the conversation and ended with it. Lines can also come from a
    pipe. /help lists what else can be typed.
    """
    with connect(model, url, api_key) as target, asyncio.Runner() as runner:
        _converse(runner, target, Conversation(system), request_fields(flags, target.card, MAX_TOKENS))


def _converse(
    runner: asyncio.Runner, target: Target, conversation: Conversation, fields: dict[str, Any]
) -> None:
    for line in _lines():
        if line == "/exit":
            return
        if line.startswith("/"):
            click.echo(_obey(conversation, line), err=True)
        elif line:
            _ask(runner, target, conversation, line, fields)


def _lines() -> Iterator[str]:
    """Stripped lines until end of file; Ctrl-C on a half-typed line drops the line."""
    terminal = sys.stdin.isatty()
    if terminal:
        import readline  # noqa: F401  (gives input() its history and line editing)

        click.echo("/help lists the commands, Ctrl-D leaves.", err=True)
    while True:
        try:
            yield input("> " if terminal else "").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            if not terminal:
                raise
            click.echo("\n(Ctrl-D leaves)", err=True)


def _obey(conversation: Conversation, line: str) -> str:
    """Run a /command; its answer is a line for the terminal."""
    name, _, rest = line.partition(" ")
    match name:
        case "/clear":
            conversation.turns.clear()
            return "The conversation is forgotten."
        case "/system":
            conversation.system = rest.strip() or None
            return "The system message is set." if conversation.system else "The system message is removed."
        case "/help":
            return HELP
    return f"There is no {name}.\n{HELP}"


def _ask(
    runner: asyncio.Runner, target: Target, conversation: Conversation, question: str, fields: dict[str, Any]
) -> None:
    """Print the answer as it comes. The conversation keeps a stopped answer so far, and no failed one."""
    answer = Answer()
    body = {"model": target.model, "messages": conversation.messages(question), **fields}
    try:
        runner.run(_stream(target, body, answer))
    except KeyboardInterrupt:
        click.echo(" (stopped)", err=True, nl=False)
    except RequestFailed as error:
        clear = " (/clear starts afresh)" if error.code == "context_length_exceeded" else ""
        click.echo(("\n" if answer.text else "") + f"basert: {error.message}{clear}", err=True)
        return
    click.echo()
    click.echo(click.style(answer.summary(), dim=True), err=True)
    conversation.add(question, answer.text)


async def _stream(target: Target, body: dict[str, Any], answer: Answer) -> None:
    body = {**body, "stream_options": {"include_usage": True}}
    async with Client(target.url, target.api_key) as client:
        async for chunk in client.stream("/v1/chat/completions", body):
            answer.add(chunk)
            click.echo(chunk.text, nl=False)
