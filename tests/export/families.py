"""Small checkpoints of the proven families, with random weights that make attention and position matter.

Freshly initialised models hardly look at their context: any rope and any mask would pass. Here every weight
is drawn so that each layer's output has about the size of its input, and logits are a few units apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

VOCAB = 384
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
GEMMA = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama3": ("llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "mistral": ("mistral", {"sliding_window": 16}),
    "phi3": ("phi3", {"sliding_window": 16}),
    "gemma3": (
        "gemma3_text",
        {
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "rope_parameters": GEMMA,
        },
    ),
}
# What the exporter gets wrong elsewhere: neighbours that rotate, half of a head, no bias, layers without rope
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "glm4": ("glm4", {"head_dim": 32, "partial_rotary_factor": 0.5}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 1, 0]}),
}


def write_family(folder: Path, family: str, **changes: Any) -> Path:
    """The family's checkpoint in `folder`, without a tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model_type, settings = (FAMILIES | MORE)[family]
    config = AutoConfig.for_model(model_type, **{**SHAPE, **settings, **changes})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    draw = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=draw)
            if weight.dim() == 2:
                weight.copy_(noise if "embed" in name else noise * 2 / weight.shape[1] ** 0.5)
            elif name.endswith("bias"):
                weight.copy_(noise / 2)
            else:
                weight.add_(noise / 5)
        if config.tie_word_embeddings:
            model.get_input_embeddings().weight.mul_(2 / 64**0.5)
    model.save_pretrained(folder)
    return folder
