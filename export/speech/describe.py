"""What a manifest says of a Whisper: special ids and rules, from generation_config.json and the tokenizer.

Fine-tuned checkpoints often come with an older generation_config.json that lacks half of it; the tokenizer
knows the ids as well, since all Whispers share one layout of them:

    text | <|endoftext|> <|startoftranscript|> | languages | <|translate|> <|transcribe|>
    <|startoflm|> <|startofprev|> <|nospeech|> <|notimestamps|> | <|0.00|> … <|30.00|>
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from basert.errors import ExportError
from basert.manifest import TOKENIZER, Speech
from export.bundle_text import GENERATION_CONFIG
from export.checkpoint import read_json

MAX_INITIAL = 50  # steps of 0.02 s, where a checkpoint does not say
TIMESTAMPS = 1501  # from 0 to 30 s
ENGLISH_VOCABULARY = 51864  # ids; multilingual checkpoints have one or more besides


def describe(checkpoint: Path, config: Any) -> Speech:
    """Its parity is not measured yet. Raises ExportError when the ids are not to be found."""
    told = read_json(checkpoint / GENERATION_CONFIG)
    ids = Tokenizer.from_file(str(checkpoint / TOKENIZER)).get_vocab(with_added_tokens=True)
    without = told.get("no_timestamps_token_id", ids.get("<|notimestamps|>"))
    if without is None or without + TIMESTAMPS >= config.vocab_size:
        raise ExportError(
            f"{checkpoint} has no timestamps in its vocabulary; basert transcribes with those only."
        )
    languages = _languages(told, ids, config)
    tasks = told.get("task_to_id") or {task: ids.get(f"<|{task}|>") for task in ("transcribe", "translate")}
    return Speech(
        mels=config.num_mel_bins,
        frames=config.max_source_positions,
        languages=languages,
        sot=told.get("decoder_start_token_id", config.decoder_start_token_id),
        no_timestamps=without,
        timestamp_begin=without + 1,
        transcribe=tasks.get("transcribe") if languages else None,
        translate=tasks.get("translate") if languages else None,
        previous=told.get("prev_sot_token_id", ids.get("<|startofprev|>")),
        no_speech=without - 1,
        suppress=_ids(told.get("suppress_tokens", config.suppress_tokens)),
        suppress_first=_ids(told.get("begin_suppress_tokens", config.begin_suppress_tokens)),
        max_initial_timestamp=told.get("max_initial_timestamp_index") or MAX_INITIAL,
        alignment_heads=len(alignment_heads(checkpoint, config)),
    )


def alignment_heads(checkpoint: Path, config: Any) -> list[tuple[int, int]]:
    """(layer, head) of the heads whose attention follows the sound, layer by layer; [] if nobody tells."""
    told = read_json(checkpoint / GENERATION_CONFIG).get("alignment_heads") or []
    heads = sorted((int(layer), int(head)) for layer, head in told)
    if heads and (heads[-1][0] >= config.decoder_layers or max(heads)[1] >= config.decoder_attention_heads):
        return []  # copied from the model that this one was distilled from
    return heads


def _languages(told: dict[str, Any], ids: dict[str, int], config: Any) -> dict[str, int]:
    """Code -> id; {} for a model that knows English only, though its tokenizer has all languages."""
    if not told.get("is_multilingual", config.vocab_size > ENGLISH_VOCABULARY):
        return {}
    named = told.get("lang_to_id") or ids
    found = ((re.fullmatch(r"<\|([a-z]{2,3})\|>", name), number) for name, number in named.items())
    return {match[1]: number for match, number in sorted(found, key=lambda pair: pair[1]) if match}


def _ids(told: list[int] | None) -> list[int]:
    return [number for number in told or [] if number >= 0]  # -1 stands for no id in some
