"""What export reads of a checkpoint folder besides its weights: the configuration and the tokenizer."""

from __future__ import annotations

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
    except (ValueError, KeyError, OSError, TypeError) as error:
        path = checkpoint / "config.json"
        raise ExportError(
            f"{path} is no configuration that transformers knows: {first_line(error)}."
        ) from None


def token_ids(checkpoint: Path, text: str) -> list[int]:
    """The text's ids, special tokens added as the tokenizer does for a plain completion."""
    from tokenizers import Tokenizer

    path = checkpoint / "tokenizer.json"
    if not path.is_file():
        raise ExportError(f"{checkpoint} has no tokenizer.json; add the model's tokenizer to the checkpoint.")
    ids: list[int] = Tokenizer.from_file(str(path)).encode(text).ids
    return ids


def first_line(error: Exception) -> str:
    """The first line of an error's text, for one-sentence messages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
