"""What a checkpoint is for: a decoder generates, an encoder embeds or classifies, a speech model transcribes.
Reads small files only.

modules.json (sentence-transformers)     embedding, or by the model_type that it states
…ForSequenceClassification               classification; with one label it is a cross-encoder, as a rule
…ForCausalLM and what else generates     decoder
a bare model, …ForMaskedLM               embedding
Whisper…, or its files of CTranslate2     speech
"""

from __future__ import annotations

from pathlib import Path

from basert.errors import ExportError
from export.checkpoint import read_json
from export.ctranslate2 import is_ctranslate2

DECODER, EMBEDDING, CLASSIFICATION, SPEECH = "decoder", "embedding", "classification", "speech"

MODULES = "modules.json"
SENTENCE_TRANSFORMERS = "config_sentence_transformers.json"
WHISPER = "WhisperForConditionalGeneration"
_KINDS = {"SentenceTransformer": EMBEDDING, "CrossEncoder": CLASSIFICATION}
_HEADS = {"ForSequenceClassification": CLASSIFICATION, "ForMaskedLM": EMBEDDING, "ForPreTraining": EMBEDDING}


def task_of(checkpoint: Path) -> str:
    """DECODER, EMBEDDING, CLASSIFICATION or SPEECH, of a checkpoint folder or a GGUF file.

    Raises ExportError for kinds of sentence-transformers that are neither.
    """
    if checkpoint.is_file():
        return DECODER
    if (checkpoint / MODULES).is_file():
        return _kind(checkpoint)
    architecture = architecture_of(checkpoint)
    if is_ctranslate2(checkpoint) or architecture == WHISPER:
        return SPEECH
    for ending, task in _HEADS.items():
        if architecture.endswith(ending):
            return task
    return EMBEDDING if _is_bare(architecture) else DECODER


def architecture_of(checkpoint: Path) -> str:
    """The first of config.json's `architectures`; "" when it names none."""
    names = read_json(checkpoint / "config.json").get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _kind(checkpoint: Path) -> str:
    kind = read_json(checkpoint / SENTENCE_TRANSFORMERS).get("model_type", "SentenceTransformer")
    if kind not in _KINDS:
        raise ExportError(
            f"{checkpoint} is a {kind} of sentence-transformers; basert exports a {' and a '.join(_KINDS)}."
        )
    # Older cross-encoders have no modules.json, newer ones one that holds the transformer alone.
    return _KINDS[kind]


def _is_bare(architecture: str) -> bool:
    """A model without any head: BertModel, Qwen3Model."""
    return architecture.endswith("Model") and not architecture.endswith("LMHeadModel")
