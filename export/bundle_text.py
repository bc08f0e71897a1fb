"""What a bundle keeps of a checkpoint's text side beside its tokenizer: special tokens, sampling defaults."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer

from basert.errors import ExportError
from basert.manifest import TOKENIZER, TOKENIZER_CONFIG, Generation

GENERATION_CONFIG = "generation_config.json"


@dataclass(frozen=True)
class SpecialTokens:
    named: dict[str, str]  # what chat templates may name: {"bos_token": "<s>", …}
    eos: list[int]  # every id that ends an answer, the tokenizer's own first
    bos: int | None


def read_special_tokens(checkpoint: Path) -> SpecialTokens:
    """From the tokenizer's files and the two configurations. Raises ExportError for a damaged file."""
    named: dict[str, str] = {}
    for name in ("special_tokens_map.json", TOKENIZER_CONFIG):
        for key, token in _read_json(checkpoint / name).items():
            text = token.get("content") if isinstance(token, dict) else token
            if key.endswith("_token") and isinstance(text, str):
                named[key] = text
    tokenizer = Tokenizer.from_file(str(checkpoint / TOKENIZER))
    ids = {key: tokenizer.token_to_id(text) for key, text in named.items()}
    ends = [ids.get("eos_token"), *_end_ids(checkpoint)]
    eos = list(dict.fromkeys(token for token in ends if token is not None))
    return SpecialTokens(named, eos, ids.get("bos_token"))


def read_generation(checkpoint: Path) -> Generation:
    """The sampling defaults that the checkpoint asks for. Raises ExportError for a damaged file."""
    path = checkpoint / GENERATION_CONFIG
    try:
        return msgspec.convert(_read_json(path), Generation, strict=False)
    except msgspec.ValidationError as error:
        raise ExportError(f"{path} cannot be used ({error}); mend or remove it.") from None


def _end_ids(checkpoint: Path) -> list[int]:
    found: list[int | None] = []
    for name in (GENERATION_CONFIG, "config.json"):
        ids = _read_json(checkpoint / name).get("eos_token_id")
        found += ids if isinstance(ids, list) else [ids]
    return [token for token in found if token is not None]


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a checkpoint's file; empty when there is no such file."""
    try:
        found: dict[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        raise ExportError(f"{path} is no JSON ({error}); fetch the checkpoint again.") from None
    return found
