"""Whisper as CTranslate2 keeps it, made into a Hugging Face checkpoint folder.

    model.bin   u32 version, name, u32 revision,
                u32 n, then n variables: name, u8 rank, u32 each size, u8 type, u32 bytes, the numbers
                u32 n, then n aliases: name, name of a variable
    names       u16 length with a final zero byte, the bytes

The layout is that of CTranslate2's own model_spec.py, the names of the weights those of its WhisperSpec.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from basert.errors import ExportError
from basert.manifest import TOKENIZER
from export.checkpoint import read_json

MODEL = "model.bin"
TYPES: dict[int, Any] = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
SPEC = "WhisperSpec"
OLDEST = 3
HEAD = 64  # numbers of an attention head, in every Whisper
MULTILINGUAL_END = 50257  # the end of text; in English-only ones it is one less

Arrays = dict[str, NDArray[Any]]


def is_ctranslate2(folder: Path) -> bool:
    return (folder / MODEL).is_file() and not any(folder.glob("*.safetensors"))


def whisper_from_ctranslate2(source: Path, out: Path) -> None:
    """Write the checkpoint of `source` in Hugging Face layout into the empty folder `out`, in float32.

    Raises ExportError for what is damaged, quantised, or no Whisper.
    """
    weights = read_weights(source / MODEL)
    layers = {side: _count(weights, side) for side in ("encoder", "decoder")}
    state = dict(_state(weights, layers))
    _write(state, layers, read_json(source / "config.json"), source, out)


def read_weights(path: Path) -> Arrays:
    """The file's variables, by CTranslate2's names."""
    damaged = f"{path} is damaged or cut off; fetch the model again."
    try:
        with path.open("rb") as file:
            version, spec, _ = _u32(file), _name(file), _u32(file)
            if spec != SPEC or version < OLDEST:
                raise ExportError(f"{path} holds a {spec} of version {version}; basert reads {SPEC} only.")
            found = dict(_variables(file))
            return found | {_name(file): found[_name(file)] for _ in range(_u32(file))}
    except (struct.error, UnicodeDecodeError, ValueError, KeyError):
        raise ExportError(damaged) from None


def _variables(file: BinaryIO) -> Iterator[tuple[str, NDArray[Any]]]:
    for _ in range(_u32(file)):
        name = _name(file)
        shape = [_u32(file) for _ in range(file.read(1)[0])]
        kind = file.read(1)[0]
        if name.endswith("/weight") and not np.issubdtype(TYPES[kind], np.floating):
            raise ExportError(
                f"{file.name} is quantised already ({name}), and basert reads float weights:"
                " name the checkpoint that it was made from."
            )
        raw = file.read(_u32(file))
        yield name, np.frombuffer(raw, TYPES[kind]).reshape(shape)


def _u32(file: BinaryIO) -> int:
    number: int = struct.unpack("<I", file.read(4))[0]
    return number


def _name(file: BinaryIO) -> str:
    [length] = struct.unpack("<H", file.read(2))
    return file.read(length)[:-1].decode()


def _count(weights: Arrays, side: str) -> int:
    return len(
        {name.split("/")[1] for name in weights if name.startswith(f"{side}/layer_") and name.count("/") > 2}
    )


# Hugging Face's module -> CTranslate2's, in each layer of either side
_LINEAR = {"self_attn.out_proj": "self_attention/linear_1", "fc1": "ffn/linear_0", "fc2": "ffn/linear_1"}
_NORMS = {"self_attn_layer_norm": "self_attention/layer_norm", "final_layer_norm": "ffn/layer_norm"}
_PACKED = {"self_attn": ("self_attention/linear_0", ("q_proj", "k_proj", "v_proj"))}
_CROSS_LINEAR = {"encoder_attn.q_proj": "attention/linear_0", "encoder_attn.out_proj": "attention/linear_2"}
_CROSS_NORMS = {"encoder_attn_layer_norm": "attention/layer_norm"}
_CROSS_PACKED = {"encoder_attn": ("attention/linear_1", ("k_proj", "v_proj"))}


def _state(weights: Arrays, layers: dict[str, int]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Hugging Face's names and float32 weights; the head is tied to the decoder's embedding."""
    yield "model.decoder.embed_tokens.weight", weights["decoder/embeddings/weight"]
    for number in (1, 2):
        yield from _both(f"model.encoder.conv{number}", weights, f"encoder/conv{number}")
    for side, count in layers.items():
        yield f"model.{side}.embed_positions.weight", weights[f"{side}/position_encodings/encodings"]
        yield from _norm(f"model.{side}.layer_norm", weights, f"{side}/layer_norm")
        for number in range(count):
            yield from _layer(
                f"model.{side}.layers.{number}", weights, f"{side}/layer_{number}", side == "decoder"
            )


def _layer(ours: str, weights: Arrays, theirs: str, crosses: bool) -> Iterator[tuple[str, NDArray[Any]]]:
    for module, name in (_LINEAR | (_CROSS_LINEAR if crosses else {})).items():
        yield from _both(f"{ours}.{module}", weights, f"{theirs}/{name}")
    for module, name in (_NORMS | (_CROSS_NORMS if crosses else {})).items():
        yield from _norm(f"{ours}.{module}", weights, f"{theirs}/{name}")
    for module, (name, parts) in (_PACKED | (_CROSS_PACKED if crosses else {})).items():
        for kind in ("weight", "bias"):
            for part, array in zip(
                parts, np.split(weights[f"{theirs}/{name}/{kind}"], len(parts)), strict=True
            ):
                if (part, kind) != ("k_proj", "bias"):  # Whisper's keys have none; it is zero here
                    yield f"{ours}.{module}.{part}.{kind}", array


def _both(ours: str, weights: Arrays, theirs: str) -> Iterator[tuple[str, NDArray[Any]]]:
    for kind in ("weight", "bias"):
        yield f"{ours}.{kind}", weights[f"{theirs}/{kind}"]


def _norm(ours: str, weights: Arrays, theirs: str) -> Iterator[tuple[str, NDArray[Any]]]:
    yield f"{ours}.weight", weights[f"{theirs}/gamma"]
    yield f"{ours}.bias", weights[f"{theirs}/beta"]


def _write(
    state: dict[str, NDArray[Any]], layers: dict[str, int], told: dict[str, Any], source: Path, out: Path
) -> None:
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer

    weights = {name: np.ascontiguousarray(array, np.float32) for name, array in state.items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    tokenizer = Tokenizer.from_file(str(source / TOKENIZER))
    tokenizer.save(str(out / TOKENIZER))
    _config(weights, layers, tokenizer).save_pretrained(out)
    _generation(told, tokenizer).save_pretrained(out)


def _config(weights: Arrays, layers: dict[str, int], tokenizer: Any) -> Any:
    from transformers import WhisperConfig

    vocab, width = weights["model.decoder.embed_tokens.weight"].shape
    hidden = {side: len(weights[f"model.{side}.layers.0.fc1.bias"]) for side in layers}
    end = tokenizer.token_to_id("<|endoftext|>")
    return WhisperConfig(
        architectures=["WhisperForConditionalGeneration"],
        vocab_size=vocab,
        d_model=width,
        num_mel_bins=weights["model.encoder.conv1.weight"].shape[1],
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        encoder_attention_heads=width // HEAD,
        decoder_attention_heads=width // HEAD,
        encoder_ffn_dim=hidden["encoder"],
        decoder_ffn_dim=hidden["decoder"],
        max_source_positions=len(weights["model.encoder.embed_positions.weight"]),
        max_target_positions=len(weights["model.decoder.embed_positions.weight"]),
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=tokenizer.token_to_id("<|startoftranscript|>"),
    )


def _generation(told: dict[str, Any], tokenizer: Any) -> Any:
    """What transformers' Whisper wants to know when it generates; told: CTranslate2's config.json."""
    from transformers import GenerationConfig

    ids = tokenizer.get_vocab(with_added_tokens=True)
    languages = {name: number for name, number in ids.items() if re.fullmatch(r"<\|[a-z]{2,3}\|>", name)}
    multilingual = len(languages) > 1 and ids["<|endoftext|>"] == MULTILINGUAL_END
    more: dict[str, Any] = {}
    if multilingual:
        tasks = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
        more = {"lang_to_id": languages, "task_to_id": tasks}
    return GenerationConfig(
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"],
        decoder_start_token_id=ids["<|startoftranscript|>"],
        prev_sot_token_id=ids["<|startofprev|>"],
        no_timestamps_token_id=ids["<|notimestamps|>"],
        suppress_tokens=told["suppress_ids"],
        begin_suppress_tokens=told["suppress_ids_begin"],
        alignment_heads=told["alignment_heads"],
        is_multilingual=multilingual,
        max_initial_timestamp_index=50,
        max_length=448,
        return_timestamps=False,
        **more,
    )
