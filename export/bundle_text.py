"""What a bundle keeps of a checkpoint's text side beside its tokenizer: special tokens, sampling defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from basert.errors import ExportError
from basert.manifest import TOKENIZER, TOKENIZER_CONFIG, Generation
from export.checkpoint import read_json

GENERATION_CONFIG = "generation_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"


@dataclass(frozen=True)
class SpecialTokens:
    named: dict[str, str]  # what chat templates may name: {"bos_token": "<s>", …}
    eos: list[int]  # every id that ends an answer, the tokenizer's own first
    bos: int | None


def read_special_tokens(checkpoint: Path) -> SpecialTokens:
    """From the tokenizer's files and the two configurations. Raises ExportError for a damaged file."""
    named: dict[str, str] = {}
    for name in (SPECIAL_TOKENS, TOKENIZER_CONFIG):
        for key, token in read_json(checkpoint / name).items():
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
        return msgspec.convert(read_json(path), Generation, strict=False)
    except msgspec.ValidationError as error:
        raise ExportError(f"{path} cannot be used ({error}); mend or remove it.") from None


def _end_ids(checkpoint: Path) -> list[int]:
    found: list[int | None] = []
    for name in (GENERATION_CONFIG, "config.json"):
        ids = read_json(checkpoint / name).get("eos_token_id")
        found += ids if isinstance(ids, list) else [ids]
    return [token for token in found if token is not None]
