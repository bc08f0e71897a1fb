"""Small checkpoints of encoders, with random weights that make attention, position and padding matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.tiny import encoder_tokenizer

VOCAB = 320
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 130,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "cls_token_id": 0,
    "sep_token_id": 2,
}
DISTIL = {"dim": 32, "hidden_dim": 64, "n_layers": 3, "n_heads": 4}
POOLINGS = [
    "cls_token",
    "max_tokens",
    "mean_tokens",
    "mean_sqrt_len_tokens",
    "weightedmean_tokens",
    "lasttoken",
]
# name -> (model_type, what its configuration has beside SMALL)
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {"type_vocab_size": 2}),
    "roberta": ("roberta", {"type_vocab_size": 1}),
    "xlm-roberta": ("xlm-roberta", {"type_vocab_size": 1}),
    "distilbert": ("distilbert", DISTIL),
    "mpnet": ("mpnet", {}),
    "modernbert": ("modernbert", {"global_attn_every_n_layers": 3, "local_attention": 16}),
    "nomic": ("nomic_bert", {"type_vocab_size": 2}),
    "qwen3": ("qwen3", {"num_key_value_heads": 2, "head_dim": 8}),
}


def write_encoder(
    folder: Path, architecture: str, *, labels: int = 0, modules: dict[str, Any] | None = None
) -> Path:
    """A checkpoint in Hugging Face layout. labels: a classifier of so many; modules: sentence-transformers'
    files by their path, as objects."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    kind, more = ARCHITECTURES[architecture]
    config = AutoConfig.for_model(kind, **{**SMALL, **more})
    if labels:
        config.num_labels = labels
    torch.manual_seed(0)
    model = (AutoModelForSequenceClassification if labels else AutoModel).from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # each layer's output has about the size of its input
                parameter.normal_(0, 1.2 * parameter.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    encoder_tokenizer().save(str(folder / "tokenizer.json"))
    plain = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}
    for path, value in {"tokenizer_config.json": plain, **(modules or {})}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(value))
    return folder


def sentence_modules(pooling: str, *, normalise: bool = True, max_tokens: int = 64) -> dict[str, Any]:
    """The files of a SentenceTransformer with this pooling."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalise else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    listed = [
        {
            "idx": number,
            "name": str(number),
            "path": paths[number],
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, kind in enumerate(kinds)
    ]
    names = (
        "cls_token",
        "mean_tokens",
        "max_tokens",
        "mean_sqrt_len_tokens",
        "weightedmean_tokens",
        "lasttoken",
    )
    flags = {f"pooling_mode_{name}": name == pooling for name in names}
    return {
        "modules.json": listed,
        "sentence_bert_config.json": {"max_seq_length": max_tokens, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": SMALL["hidden_size"], **flags},
    }
