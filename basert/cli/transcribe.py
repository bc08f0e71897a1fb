"""`basert transcribe`: recordings in, transcripts out, with a bar that counts their seconds."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import click
import msgspec

from basert import progress
from basert.cli.completion import bundle_names
from basert.cli.options import Target, connect, server_options
from basert.cli.pipes import piped, write
from basert.client import Client, Hearing, RequestFailed
from basert.errors import BasertError

PATHS = {False: "/v1/audio/transcriptions", True: "/v1/audio/translations"}
ENDINGS = {"text": "txt", "srt": "srt", "vtt": "vtt", "json": "json", "verbose_json": "json"}
WHAT = "transcript"
# A server of one's own takes whatever is on this machine.
LIMITS = ("--max-audio-bytes", str(16 << 30), "--max-audio-seconds", "86400", "--body-timeout", "600")


@click.command("transcribe")
@click.argument("model", shell_complete=bundle_names)
@click.argument("files", nargs=-1, required=True, type=click.Path(allow_dash=True, path_type=Path))
@click.option("--format", "form", type=click.Choice(list(ENDINGS)), default="text", show_default=True)
@click.option("--language", metavar="NAME", help="Spoken: a code or a name; else it is found out.")
@click.option("--translate", is_flag=True, help="Write it in English.")
@click.option("--prompt", metavar="TEXT", help="What was said before, or names that come.")
@click.option("--words", is_flag=True, help="With the times of words; takes --format verbose_json.")
@click.option("--sequential", is_flag=True, help="One window after another, each with the text before it.")
@click.option("--temperature", type=click.FloatRange(0, 1), metavar="N", help="0 tries again when in doubt.")
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Write a file for each recording here, not to standard output.",
)
@server_options
def command(
    model: str,
    files: Sequence[Path],
    url: str | None,
    api_key: str | None,
    output_dir: Path | None,
    **flags: Any,
) -> None:
    """Write down what FILES say, with MODEL: a bundle's name or path, or a model of the server at --url.

    \b
    basert transcribe whisper talk.mp3
    basert transcribe whisper --format srt --output-dir . *.mp4

    FILES are sound or video of any kind; - is standard input. Without --url, a server is started for them and
    ended with the last one.
    """
    if flags["words"] and flags["form"] != "verbose_json":
        raise click.UsageError("--words needs --format verbose_json.")
    fields = _fields(flags)
    with piped(), connect(model, url, api_key, LIMITS) as target, asyncio.Runner() as runner:
        failed = [runner.run(_transcribe(target, file, fields, flags, output_dir)) for file in files]
    sys.exit(int(any(failed)))


def _fields(flags: dict[str, Any]) -> list[tuple[str, str]]:
    """Of the form."""
    said = {name: flags[name] for name in ("language", "prompt", "temperature")}
    fields = [(name, str(value)) for name, value in said.items() if value is not None]
    if flags["words"]:
        fields += [("timestamp_granularities[]", kind) for kind in ("word", "segment")]
    if flags["sequential"]:
        fields.append(("condition_on_previous_text", "true"))
    return [("response_format", flags["form"]), *fields]


async def _transcribe(
    target: Target, file: Path, fields: list[tuple[str, str]], flags: dict[str, Any], folder: Path | None
) -> bool:
    """One file. True if it was refused, which is told and does not keep others from their turn."""
    name = "stdin" if file == Path("-") else file.name
    path = PATHS[flags["translate"]]
    bar = sys.stdout.isatty() and sys.stderr.isatty()
    transcript = _Transcript(flags["form"], live=folder is None and not bar)
    try:
        with _opened(file) as sound, progress.task(name, unit="s") as show:
            async with Client(target.url, target.api_key) as client:
                async for heard in client.transcribe(path, sound, name, [("model", target.model), *fields]):
                    if heard.end is not None and heard.duration:
                        show(round(heard.end), max(1, round(heard.duration)))
                    transcript.add(heard)
            transcript.end()
    except RequestFailed as error:
        if not 400 <= error.http_status < 500:
            raise
        progress.note(f"{name}: {error.message}")
        return True
    _keep(transcript, folder / f"{Path(name).stem}.{ENDINGS[flags['form']]}" if folder else None)
    return False


def _keep(transcript: _Transcript, file: Path | None) -> None:
    """Raises BasertError."""
    if file is None:
        transcript.say_rest()
        return
    try:
        file.write_text(transcript.text)
    except OSError as error:
        raise BasertError(f"{file} cannot be written: {error.strerror}.") from None


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    if file == Path("-"):
        yield sys.stdin.buffer
        return
    try:
        sound = file.open("rb")
    except OSError as error:
        raise BasertError(f"{file} cannot be read: {error.strerror}.") from None
    with sound:
        yield sound


class _Transcript:
    """What is said of one file. Text goes out as it comes, where there is no bar in the way."""

    def __init__(self, form: str, *, live: bool) -> None:
        self.text = ""
        self._form = form
        self._live = live

    def add(self, heard: Hearing) -> None:
        ended = heard.type != "transcript.text.delta"
        if not ended and "json" not in self._form:
            self._say(heard.delta)
        elif not heard.type:
            self._say(heard.raw.decode(errors="replace"))
        elif ended and "json" in self._form:
            event = msgspec.json.decode(heard.raw)
            event.pop("type")
            self._say(msgspec.json.encode(event).decode())

    def end(self) -> None:
        if not self.text.endswith("\n"):
            self._say("\n")

    def say_rest(self) -> None:
        """What was held back, for the bar's sake."""
        if not self._live:
            write(self.text, WHAT)

    def _say(self, text: str) -> None:
        self.text += text
        if self._live:
            write(text, WHAT)
