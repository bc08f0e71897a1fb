"""What `basert serve` prints when it can answer: requests to paste. Knows text, no server."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

import click

from basert import __version__

_READY = """\
basert {version} serves {model} at {url}/v1. Try it:

  curl {url}/v1/{path}{header} -H "Content-Type: application/json" \\
    -d '{{"model": "{model}", {body}, "temperature": 0}}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key={key})
  for chunk in client.{call}(
      model="{model}", {argument}, stream=True
  ):
      print({delta} or "", end="", flush=True)

Ctrl-C ends it.
"""
_HEARS = """\
basert {version} serves {model} at {url}/v1. Try it:

  curl {url}/v1/audio/transcriptions{header} \\
    -F model={model} -F file=@speech.mp3

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key={key})
  print(client.audio.transcriptions.create(model="{model}", file=open("speech.mp3", "rb")).text)

Ctrl-C ends it.
"""
_CHAT = {
    "path": "chat/completions",
    "body": '"messages": [{"role": "user", "content": "Why is the sky blue?"}]',
    "call": "chat.completions.create",
    "argument": 'messages=[{"role": "user", "content": "Name three primary colors."}]',
    "delta": "chunk.choices[0].delta.content",
}
_COMPLETION = {  # a base model has no chat template
    "path": "completions",
    "body": '"prompt": "The sky is blue because"',
    "call": "completions.create",
    "argument": 'prompt="Once upon a time", max_tokens=100',
    "delta": "chunk.choices[0].text",
}


def print_welcome(
    url: str, model: str, keys: Sequence[str], *, chats: bool = False, hears: bool = False
) -> None:
    """A key is shown on a terminal only: standard output may be a log."""
    key = keys[0] if keys and sys.stdout.isatty() else "$BASERT_API_KEY" if keys else ""
    header = f' -H "Authorization: Bearer {key}"' if key else ""
    shown = 'os.environ["BASERT_API_KEY"]' if key.startswith("$") else repr(key or "none")
    endpoint = _CHAT if chats else _COMPLETION
    form = _HEARS if hears else _READY
    text = form.format(version=__version__, url=url, model=model, header=header, key=shown, **endpoint)
    with contextlib.suppress(OSError):  # whoever reads may have left
        click.echo(text)
