"""A Whisper checkpoint as whisper.cpp keeps it: ggml's first file format, weights in 16 bits.

    i32     magic, 11 sizes (_sizes)
    filters i32 bands, i32 frequencies, f32 each
    tokens  i32 count, then each: i32 length, bytes
    tensors until the end, each: i32 rank, i32 length of name, i32 type, i32 sizes (last first), name, numbers

Runs where the checkpoint was made, so it takes what the export extra brings along.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tokenizers import Tokenizer

from basert.audio.features import mel_filters
from basert.manifest import TOKENIZER
from basert.text.tokenizer import TextModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGIC, FLOAT32, FLOAT16 = 0x67676D6C, 0, 1
END = "<|endoftext|>"  # whisper.cpp knows itself what comes from here on

# Hugging Face's names -> OpenAI's, in this order
NAMES = (
    (r"^model\.", ""),
    (r"\.layers\.", ".blocks."),
    (r"\.self_attn_layer_norm\.", ".attn_ln."),
    (r"\.encoder_attn_layer_norm\.", ".cross_attn_ln."),
    (r"\.final_layer_norm\.", ".mlp_ln."),
    (r"^encoder\.layer_norm\.", "encoder.ln_post."),
    (r"^decoder\.layer_norm\.", "decoder.ln."),
    (r"\.self_attn\.", ".attn."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.out_proj\.", ".out."),
    (r"\.fc1\.", ".mlp.0."),
    (r"\.fc2\.", ".mlp.2."),
    (r"\.embed_positions\.weight$", ".positional_embedding"),
    (r"\.embed_tokens\.", ".token_embedding."),
)


def write(checkpoint: Path, into: Path) -> None:
    """`checkpoint`: a Whisper's folder in Hugging Face layout. `into`: a file."""
    from safetensors.numpy import load_file

    config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text())
    with into.open("wb") as file:
        file.write(struct.pack("<12i", MAGIC, *_sizes(config)))
        filters = mel_filters(config["num_mel_bins"])
        file.write(struct.pack("<2i", *filters.shape) + filters.astype("<f4").tobytes())
        tokens = list(_tokens(checkpoint / TOKENIZER))
        file.write(struct.pack("<i", len(tokens)))
        for token in tokens:
            file.write(struct.pack("<i", len(token)) + token)
        for name, array in load_file(checkpoint / "model.safetensors").items():
            if name != "proj_out.weight":  # the token embedding once more
                _write(file, _renamed(name), array)


def _sizes(config: dict[str, Any]) -> Iterator[int]:
    yield config["vocab_size"]
    for side in ("encoder", "decoder"):
        yield config["max_source_positions" if side == "encoder" else "max_target_positions"]
        yield config["d_model"]
        yield config[f"{side}_attention_heads"]
        yield config[f"{side}_layers"]
    yield config["num_mel_bins"]
    yield FLOAT16


def _tokens(path: Path) -> Iterator[bytes]:
    tokenizer = Tokenizer.from_file(str(path))
    text, end = TextModel(tokenizer), tokenizer.token_to_id(END)
    assert end is not None, "Whispers end their texts"
    return map(text.token_bytes, range(end))


def _renamed(name: str) -> str:
    for theirs, ours in NAMES:
        name = re.sub(theirs, ours, name)
    return name


def _write(file: BinaryIO, name: str, array: NDArray[np.float32]) -> None:
    """Vectors and positions stay in 32 bits; the bias of a convolution has a column."""
    if re.search(r"\.conv\d\.bias$", name):
        array = array[:, None]
    wide = min(array.shape) == 1 or array.ndim < 2 or name.endswith("positional_embedding")
    sizes = array.shape[::-1]
    encoded = name.encode()
    head = (len(sizes), len(encoded), FLOAT32 if wide else FLOAT16, *sizes)
    file.write(struct.pack(f"<{len(head)}i", *head) + encoded)
    file.write(array.astype("<f4" if wide else "<f2").tobytes())
