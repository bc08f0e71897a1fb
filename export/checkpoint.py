"""What export reads of a checkpoint folder besides its weights: the configuration and the tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from basert.errors import ExportError


def read_config(checkpoint: Path) -> Any:
    """transformers' configuration object; ExportError when config.json is missing, broken or unknown."""
    from transformers import AutoConfig

    if not (checkpoint / "config.json").is_file():
        raise ExportError(f"{checkpoint} has no config.json, so it is no Hugging Face checkpoint.")
    try:
        return AutoConfig.from_pretrained(checkpoint, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # each configuration class checks in its own way
        path = checkpoint / "config.json"
        raise ExportError(
            f"{path} is no configuration that transformers knows: {first_line(error)}."
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in one of a checkpoint's small files; empty when there is no such file."""
    if not path.is_file():
        return {}
    found = _decoded(path)
    if not isinstance(found, dict):
        raise ExportError(f"{path} holds no JSON object; fetch the checkpoint again.")
    return found


def read_list(path: Path) -> list[Any]:
    """The list in one of a checkpoint's small files; empty when there is no such file."""
    found = _decoded(path) if path.is_file() else []
    if not isinstance(found, list):
        raise ExportError(f"{path} holds no JSON list; fetch the checkpoint again.")
    return found


def token_ids(checkpoint: Path, text: str) -> list[int]:
    """The text's ids, special tokens added as the tokenizer does for a plain completion."""
    from tokenizers import Tokenizer

    path = checkpoint / "tokenizer.json"
    if not path.is_file():
        raise ExportError(f"{checkpoint} has no tokenizer.json; add the model's tokenizer to the checkpoint.")
    ids: list[int] = Tokenizer.from_file(str(path)).encode(text).ids
    return ids


def _decoded(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ExportError(f"{path} is no JSON ({error}); fetch the checkpoint again.") from None


def first_line(error: Exception) -> str:
    """The first line of an error's text, for one-sentence messages; with the second, if it announces it."""
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join([first, *(line.strip() for line in more[:1] if first.endswith(":"))]).rstrip(".")
