"""What a manifest says of an encoder, from the checkpoint's files, its module and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from basert.errors import ExportError
from basert.manifest import TOKENIZER, TOKENIZER_CONFIG, Encoder
from export.checkpoint import read_json
from export.encoders.module import EncoderModule
from export.encoders.settings import Settings
from export.encoders.task import CLASSIFICATION, EMBEDDING

SHORTEST = 8  # tokens; what parity and golden cases need
UNBOUNDED = 1 << 20  # what tokenizers without a limit state as theirs is far beyond
DEFAULT_LONGEST = 8192  # tokens of an input, unless asked for more
_ACTIVATIONS = {"Sigmoid": "sigmoid", "Softmax": "softmax", "Identity": "none"}


def describe(checkpoint: Path, module: EncoderModule, settings: Settings, max_tokens: int | None) -> Encoder:
    """Its parity is not measured yet. Raises ExportError for what cannot be served."""
    task = CLASSIFICATION if module.classifies else EMBEDDING
    shared: dict[str, Any] = {
        "task": task,
        "max_tokens": _max_tokens(checkpoint, module, settings, max_tokens),
        "parity": {},
        "prompts": settings.prompts or {},
        "default_prompt": settings.default_prompt,
    }
    if task == EMBEDDING:
        return Encoder(width=_width(module), **shared, **_embedding(checkpoint, settings))
    return Encoder(**shared, **_classification(checkpoint, module, settings))


def longest_input(checkpoint: Path, module: EncoderModule, settings: Settings) -> int:
    """sentence-transformers' limit, else the tokenizer's, else as many positions as the model has."""
    config = module.model.config
    positions = int(getattr(config, "max_position_embeddings", UNBOUNDED) or UNBOUNDED) - module.offset
    stated = read_json(checkpoint / TOKENIZER_CONFIG).get("model_max_length")
    limit = settings.max_tokens or (int(stated) if stated and stated < UNBOUNDED else None)
    return min(limit or positions, positions)


def _max_tokens(checkpoint: Path, module: EncoderModule, settings: Settings, asked: int | None) -> int:
    longest = longest_input(checkpoint, module, settings)
    if asked is not None and not SHORTEST <= asked <= longest:
        raise ExportError(
            f"A max context of {asked} is not possible; this model allows {SHORTEST} to {longest}."
        )
    return asked or min(longest, DEFAULT_LONGEST)


def _width(module: EncoderModule) -> int:
    width = int(module.model.config.hidden_size) * len(module.pooling)
    for layer in module.after.modules():
        width = int(getattr(layer, "out_features", width))
    return width if module.width is None else min(width, module.width)


def _embedding(checkpoint: Path, settings: Settings) -> dict[str, Any]:
    kinds = [module.kind for module in settings.after]
    return {
        "pooling": "+".join(settings.pooling).replace("lasttoken", "last"),
        "normalised": kinds[-1:] == ["Normalize"] and settings.width is None,
        "similarity": settings.similarity,
        "truncatable": _truncatable(checkpoint),
    }


def _truncatable(checkpoint: Path) -> list[int]:
    config = read_json(checkpoint / "config.json")
    stated = config.get("matryoshka_dimensions") or config.get("matryoshka_dims") or []
    return sorted(int(size) for size in stated)


def _classification(checkpoint: Path, module: EncoderModule, settings: Settings) -> dict[str, Any]:
    config = module.model.config
    pairs, token_types = _pairs(checkpoint, module)
    return {
        "width": int(config.num_labels),
        "labels": [str(config.id2label[index]) for index in range(config.num_labels)],
        "activation": _activation(config, settings, checkpoint),
        "pairs": pairs,
        "token_types": token_types,
    }


def _activation(config: Any, settings: Settings, checkpoint: Path) -> str:
    """As sentence-transformers' CrossEncoder has it for one label, as transformers' pipeline for several."""
    own = getattr(config, "sentence_transformers", None) or {}
    older = getattr(config, "sbert_ce_default_activation_function", None)
    named = settings.activation or own.get("activation_fn") or older
    if named:
        kind = str(named).rpartition(".")[2]
        if kind not in _ACTIVATIONS or not str(named).startswith("torch.nn."):
            raise ExportError(
                f"{checkpoint} makes scores by {named!r}; basert knows {', '.join(_ACTIVATIONS)} of torch.nn."
            )
        return _ACTIVATIONS[kind]
    if config.num_labels == 1 or config.problem_type == "multi_label_classification":
        return "sigmoid"
    return "softmax"


def _pairs(checkpoint: Path, module: EncoderModule) -> tuple[bool, bool]:
    """(pairs, token_types): does the tokenizer keep two texts apart, and does the model look at types?"""
    tokenizer = Tokenizer.from_file(str(checkpoint / TOKENIZER))
    first, second = "one two", "three"
    pair = tokenizer.encode(first, second)
    texts = [tokenizer.encode(text, add_special_tokens=False).ids for text in (first, second)]
    types = bool(any(pair.type_ids)) and _type_count(module) > 1
    return types or len(pair.ids) > sum(map(len, texts)), types


def _type_count(module: EncoderModule) -> int:
    return int(getattr(module.model.config, "type_vocab_size", 0) or 0)
