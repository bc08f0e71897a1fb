"""From what a source gave to the checkpoint folder that every later step reads. Knows no graph.

The folder is in Hugging Face layout: config.json, safetensors (a GGUF's weights dequantised to float32, any
other's as they are, hard-linked where possible), tokenizer.json whatever the tokenizer came as, and
chat_template.jinja if the model has one.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers

from basert.errors import ExportError
from basert.manifest import CHAT_TEMPLATE, TOKENIZER, TOKENIZER_CONFIG
from export.bundle_text import SPECIAL_TOKENS, read_generation
from export.checkpoint import first_line, read_json
from export.ctranslate2 import MODEL, is_ctranslate2, whisper_from_ctranslate2
from export.encoders.settings import module_files, read_settings, transformer_folder
from export.encoders.task import DECODER, SPEECH, task_of
from export.families import recipe_for
from export.workspace import checkpoint_files, link_or_copy, require_space

INDEX = "model.safetensors.index.json"


def prepare(source: Path, out: Path) -> None:
    """Write the checkpoint of `source` (a folder, one of CTranslate2, or a GGUF file) into the empty `out`.

    Raises ExportError for an unknown architecture, a damaged or truncated weight file, a missing tokenizer.
    """
    if source.is_file():
        _from_gguf(source, out)
    elif is_ctranslate2(source):
        require_space(out, 2 * (source / MODEL).stat().st_size, f"{source} in float32")
        whisper_from_ctranslate2(source, out)
    else:
        _from_folder(source, out)
    try:
        Tokenizer.from_file(str(out / TOKENIZER))
    except Exception as error:  # tokenizers raises no other class
        raise ExportError(
            f"the {TOKENIZER} of {source} is damaged ({first_line(error)}); fetch it again."
        ) from None


def weight_bytes(checkpoint: Path) -> int:
    """Size of the weights in float32."""
    counts = [_elements(_header(path)) for path in sorted(checkpoint.glob("*.safetensors"))]
    return 4 * sum(counts)


def _from_folder(source: Path, out: Path) -> None:
    task = task_of(source)
    encodes = task not in (DECODER, SPEECH)
    inner = transformer_folder(source)
    if task == DECODER:
        recipe_for(source)
    _check_quantisation(inner)
    _check_weights(inner)
    _check_texts(inner)
    for path in [*checkpoint_files(source), *checkpoint_files(inner)]:
        _copy(path, out / path.name)
    for path in module_files(source):
        _copy(path, out / path.relative_to(source))
    if encodes or not (out / TOKENIZER).is_file():
        _convert_tokenizer(inner, out)
    if encodes:
        _settle_tokenizer(out, read_settings(out).lower_case)
    template = _template(inner)
    if template and not (out / CHAT_TEMPLATE).is_file():
        (out / CHAT_TEMPLATE).write_text(template)


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)
    if path.suffix == ".safetensors":
        link_or_copy(path, target)
    else:
        shutil.copyfile(path, target)


def _check_quantisation(source: Path) -> None:
    quantised = read_json(source / "config.json").get("quantization_config")
    if quantised:
        method = quantised.get("quant_method", "unknown method")
        raise ExportError(
            f"{source} is quantised already ({method}), and basert reads full precision or GGUF: name the"
            " checkpoint that it was made from."
        )


def _check_texts(source: Path) -> None:
    """Damaged small files, before hours of work: what reads them runs last."""
    read_generation(source)
    for name in (SPECIAL_TOKENS, TOKENIZER_CONFIG):
        read_json(source / name)


def _check_weights(source: Path) -> None:
    """Every safetensors file that belongs to the checkpoint is there, and as long as its header says."""
    weights = sorted(path.name for path in source.glob("*.safetensors"))
    if (source / INDEX).is_file():
        weights = sorted(set(read_json(source / INDEX).get("weight_map", {}).values()))
    if not weights:
        raise ExportError(
            f"{source} has no safetensors weights, and basert reads no other format (but GGUF)."
        )
    for name in weights:
        path = source / name
        if not path.is_file():
            raise ExportError(
                f"{source} lacks {name}, which its index or a link names; fetch the checkpoint again."
            )
        _header(path)


def _header(path: Path) -> dict[str, Any]:
    """A safetensors file's table of tensors. Raises ExportError when the file is not as long as it says."""
    with path.open("rb") as file:
        size = path.stat().st_size
        try:
            [length] = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = json.loads(file.read(min(length, size)))
            end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        except (struct.error, ValueError, KeyError, TypeError):
            raise ExportError(f"{path} is no safetensors file, or a damaged one; fetch it again.") from None
    if 8 + length + end != size:
        raise ExportError(
            f"{path} is truncated: it has {size:,} of {8 + length + end:,} bytes; fetch it again."
        )
    return header


def _elements(header: dict[str, Any]) -> int:
    total = 0
    for name, entry in header.items():
        count = 1
        for size in entry["shape"] if name != "__metadata__" else [0]:
            count *= size
        total += count
    return total


def _convert_tokenizer(source: Path, out: Path) -> None:
    """tokenizer.json from whatever else the checkpoint has (sentencepiece, vocab and merges)."""
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
            tokenizer.backend_tokenizer.save(str(out / TOKENIZER))
    except Exception as error:  # each tokenizer class fails in its own way
        raise ExportError(
            f"{source} has no tokenizer that basert can use ({first_line(error)}); add its tokenizer.json."
        ) from error


def _settle_tokenizer(folder: Path, lower_case: bool) -> None:
    """A tokenizer of an encoder neither cuts nor pads: who asks it knows the limit. It may lower case."""
    path = folder / TOKENIZER
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if lower_case:
        others = [tokenizer.normalizer] if tokenizer.normalizer else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *others])
    tokenizer.save(str(path))


def _template(source: Path) -> str | None:
    """The chat template as older checkpoints keep it, inside tokenizer_config.json."""
    found = read_json(source / TOKENIZER_CONFIG).get("chat_template")
    if isinstance(found, list):  # of {"name", "template"}
        found = next((entry.get("template") for entry in found if entry.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def _from_gguf(source: Path, out: Path) -> None:
    """Through transformers, which dequantises the weights and rebuilds the tokenizer from the file."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    try:
        with quiet(), _parsed_once():
            config = AutoConfig.from_pretrained(**where)
            config.save_pretrained(out)
            recipe_for(out)
            AutoTokenizer.from_pretrained(**where).save_pretrained(out)
            model = AutoModelForCausalLM.from_pretrained(**where, config=config, dtype=torch.float32)
            require_space(out, 4 * model.num_parameters(), f"{source.name} in float32")
            model.hf_quantizer = None
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.save_pretrained(out)
    except (ValueError, KeyError, IndexError, OSError, struct.error) as error:
        raise ExportError(
            f"{source} is no GGUF that can be read: it is cut off, damaged or of a kind that transformers"
            f" does not know ({first_line(error)})."
        ) from error


@contextlib.contextmanager
def _parsed_once() -> Iterator[None]:
    """transformers parses a GGUF anew for configuration, tokenizer and weights, seconds each time."""
    import gguf

    reader = gguf.GGUFReader
    gguf.GGUFReader = functools.cache(reader)
    try:
        yield
    finally:
        gguf.GGUFReader = reader


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers draws bars and warns on stderr whatever its log level; our own task has a bar already."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
