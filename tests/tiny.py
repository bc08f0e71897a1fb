"""Bundles that need no model: a real tokenizer and template over a session that plays a script.

With temperature 0 (or any, as long as `peak` is high) the answer to every prompt is SENTENCE; a prompt that
ends in a beginning of SENTENCE is continued from there. With `ignore_eos` the sentence starts over.
A prompt with the word CRASH kills the engine with SIGKILL; one with RAISE makes its step raise.

An encoder's answers are hashes of its inputs (engines.sessions.testing.values_of); both words hold there too.
Speech models are written by tests/tiny_speech.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from basert import __version__
from basert.adapter import ADAPTER, FACTORS, Adapter
from basert.manifest import (
    CHAT_TEMPLATE,
    ENCODER_GOLDEN,
    GENERATION,
    GOLDEN,
    MANIFEST,
    PARITY,
    SCHEMA,
    TOKENIZER,
    Encoder,
    EncoderCase,
    EncoderGolden,
    EncoderParity,
    File,
    Generation,
    Golden,
    GoldenCase,
    Graph,
    KVCache,
    Lora,
    LoraLayer,
    LoraModule,
    Manifest,
    ParityNumbers,
    Provenance,
    Source,
    Tensor,
    read_manifest,
    write_json,
)
from engines.sessions.testing import FUSED, EncoderScript, Script, logits_of, values_of

PARROT = " hello hello the parrot."
SENTENCE = " Grüße, world 🌍! Boxing wizards jump."  # several of its tokens hold half a character
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GRAPH = "graphs/decoder.json"
ENCODER_GRAPH = "graphs/encoder.json"
SHAPES = ((1, 8), (8, 8), (1, 16), (4, 16), (8, 16), (1, 32), (4, 32), (1, 64), (2, 64))


def tiny_tokenizer(special: Sequence[str] = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")) -> Tokenizer:
    """A byte-level BPE with ChatML's special tokens and the two magic words as tokens of their own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(special),
    )
    tokenizer.train_from_iterator([" world wizards jump user assistant system hello the"] * 4, trainer)
    tokenizer.add_tokens(["CRASH", "RAISE"])
    return tokenizer


def write_testing_bundle(
    folder: Path,
    *,
    name: str = "tiny",
    max_context: int = 256,
    slots: int = 4,
    step_seconds: float = 0.0,
    load_seconds: float = 0.0,
    load_error: str = "",
    broken_for_good: bool = False,
    peak: float = 30.0,
    sentence: str = SENTENCE,
    lora: bool = False,
) -> Path:
    """Write a bundle named `name` into `folder` and return its path, `folder / name`.

    step_seconds, load_seconds: slept in every step and while loading; load_error: refuse to load with this
    sentence; broken_for_good: after RAISE no step works any more; peak: lower it (5) for answers that depend
    on the seed; sentence "": each next token is a hash of the whole sequence before it, no word is magic;
    lora: it takes adapters (write_testing_adapter), all of which say PARROT, or other hashes.
    """
    bundle = folder / name
    bundle.mkdir(parents=True)
    tokenizer = tiny_tokenizer()
    end, crash, fail = (tokenizer.encode(word).ids[0] for word in ("<|im_end|>", "CRASH", "RAISE"))
    played = [*tokenizer.encode(sentence).ids, end] if sentence else []
    script = Script(
        vocab_size=tokenizer.get_vocab_size(),
        sentence=played,
        adapted=[*tokenizer.encode(PARROT).ids, end] if sentence else [],
        peak=peak,
        step_seconds=step_seconds,
        load_seconds=load_seconds,
        load_error=load_error,
        crash_id=crash if sentence else -1,
        raise_id=fail if sentence else -1,
        broken_for_good=broken_for_good,
    )
    tokenizer.save(str(bundle / TOKENIZER))
    (bundle / CHAT_TEMPLATE).write_text(TEMPLATE)
    write_json(bundle / GENERATION, Generation())
    write_json(bundle / PARITY, _PARITY)
    write_json(bundle / GRAPH, script)
    write_json(bundle / GOLDEN, Golden(atol=1e-4, cases=[_golden_case(script)] if sentence else []))
    decoder = {"parity": _PARITY, "has_chat_template": True, "eos_token_ids": [end]}
    graphs = [decoder_graph(script)]
    if lora:
        graphs.append(msgspec.structs.replace(graphs[0], role="decoder-lora"))
        decoder["lora"] = Lora(f"testing {name}", 1, [LoraLayer("layer", 1, [LoraModule("module", 1)])], "")
    kv = KVCache(dtype="int64", kv_heads=[1], head_dim=[1])
    write_testing_manifest(bundle, tokenizer, kv, graphs, max_context=max_context, slots=slots, **decoder)
    return bundle


def write_testing_adapter(
    folder: Path, base: Path, *, name: str = "parrot", number: int = 1, units: int = 1
) -> Path:
    """Write an adapter of a testing bundle into `folder` and return its path. number: added to hashes."""
    bundle = folder / name
    bundle.mkdir(parents=True)
    told = read_manifest(base)
    assert told.lora is not None
    numbers = np.zeros((units, 1), np.float32)
    numbers[0] = number
    np.savez(bundle / FACTORS, **{"layer.a": np.ones((units, 1, 1), np.float32), "layer.b": numbers})
    adapter = Adapter(
        schema=1,
        name=name,
        base=told.name,
        base_hash=told.lora.base,
        rank=units,
        units=units,
        alpha=1.0,
        scaled="alpha / r",
        modules=["module"],
        source=Source(uri="testing"),
        created=number,
        basert=__version__,
        versions={},
        parity=_PARITY,
        files=[_file(bundle, bundle / FACTORS)],
    )
    write_json(bundle / ADAPTER, adapter)
    return bundle


def encoder_tokenizer() -> Tokenizer:
    """tiny_tokenizer with [CLS] and [SEP] around a text or a pair, whose second text has the type 1."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]", "[PAD]"])
    special = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    tokenizer.post_processor = processors.Sequence(
        [processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=pair, special_tokens=special)]
    )
    return tokenizer


def write_testing_encoder(
    folder: Path,
    *,
    name: str = "tiny-encoder",
    task: str = "embedding",
    width: int = 8,
    max_tokens: int = 64,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    labels: Sequence[str] = (),
    token_types: bool = False,
    pairs: bool = True,
    normalised: bool | None = None,
    step_seconds: float = 0.0,
    load_seconds: float = 0.0,
    load_error: str = "",
    broken_for_good: bool = False,
    target: str = "testing",
    **more: Any,
) -> Path:
    """Write an encoder's bundle named `name` into `folder` and return its path, `folder / name`.

    task: "embedding", of `width` dimensions and by default of length 1; or "classification", with logits in
    [-1, 1) of `labels` (one, which ranks, if none are named) and a sigmoid or softmax. shapes: all buckets,
    one of which must hold `max_tokens`. more: fields of the manifest's Encoder. Other knobs as above.
    """
    bundle = folder / name
    bundle.mkdir(parents=True)
    tokenizer = encoder_tokenizer()
    labels = list(labels or (["LABEL_0"] if task == "classification" else []))
    script = EncoderScript(
        width=len(labels) or width,
        shapes=list(shapes),
        normalised=not labels if normalised is None else normalised,
        token_types=token_types,
        step_seconds=step_seconds,
        load_seconds=load_seconds,
        load_error=load_error,
        crash_id=tokenizer.token_to_id("CRASH"),
        raise_id=tokenizer.token_to_id("RAISE"),
        broken_for_good=broken_for_good,
    )
    told: dict[str, Any] = {
        "pooling": "" if labels else "mean",
        "activation": "none" if not labels else "softmax" if len(labels) > 1 else "sigmoid",
    }
    encoder = Encoder(
        task=task,
        width=script.width,
        max_tokens=max_tokens,
        parity={target: EncoderParity(0, 0.0, 1.0, 1.0, 1.0)},
        normalised=script.normalised,
        token_types=token_types,
        pairs=pairs,
        labels=labels,
        **told | more,
    )
    tokenizer.save(str(bundle / TOKENIZER))
    write_json(bundle / GENERATION, Generation())
    (bundle / PARITY).write_bytes(msgspec.json.encode(encoder.parity))
    write_json(bundle / ENCODER_GRAPH, script)
    write_json(bundle / ENCODER_GOLDEN, EncoderGolden({target: 1e-6}, _encoder_cases(script, max_tokens)))
    graph, kv = _encoder_graph(script, target), KVCache("float32", [], [])
    write_testing_manifest(bundle, tokenizer, kv, [graph], max_context=max_tokens, slots=1, encoder=encoder)
    return bundle


def _encoder_cases(script: EncoderScript, max_tokens: int) -> list[EncoderCase]:
    inputs = [[20 + i % 9 for i in range(length)] for length in (1, max_tokens // 2, max_tokens)]
    return [EncoderCase(ids, values_of(script, ids).tolist()) for ids in inputs]


_PARITY = ParityNumbers(0, 0.0, 1.0, 0.0, 1.0)


def _golden_case(script: Script) -> GoldenCase:
    ids = [*range(0, script.vocab_size, 50), script.sentence[3]]
    logits = logits_of(script, script.sentence[3])
    return GoldenCase([10, 11, 12, *script.sentence[:3]], ids, [float(logits[i]) for i in ids])


def write_testing_manifest(
    bundle: Path, tokenizer: Tokenizer, kv: KVCache, graphs: list[Graph], **more: Any
) -> None:
    """more: fields of the Manifest; the family is by default the first graph's role."""
    fields: dict[str, Any] = {"eos_token_ids": [], "has_chat_template": False, "family": graphs[0].role}
    manifest = Manifest(
        schema=SCHEMA,
        name=bundle.name,
        variant="fp32",
        variant_reason="asked for",
        vocab_size=tokenizer.get_vocab_size(),
        bos_token_id=None,
        kv_cache=kv,
        graphs=graphs,
        files=[_file(bundle, path) for path in sorted(bundle.rglob("*")) if path.is_file()],
        provenance=Provenance(
            source=Source(uri="testing"),
            architecture="Testing",
            exporter="tests/tiny.py",
            basert=__version__,
            versions={"numpy": np.__version__},
            created=0,
            host="any",
        ),
        **fields | more,
    )
    write_json(bundle / MANIFEST, manifest)


def decoder_graph(script: Script) -> Graph:
    return Graph(
        role="decoder",
        target="testing",
        path=GRAPH,
        inputs=[
            Tensor("input_ids", "int64", ["batch", "chunk"]),
            Tensor("seqlens_k", "int32", ["batch"]),
            Tensor("total_seq", "int32", []),
            Tensor("logits_idx", "int64", ["rows"]),
        ],
        outputs=[
            Tensor("next_token", "int64", ["rows"]),
            Tensor("logits", "float32", ["rows", script.vocab_size]),
        ],
        batch_buckets=[1, 2, 4, 8, 16, 32],
        chunk_buckets=[8, 32, 64],
        draft_buckets=[2, FUSED],
    )


def _encoder_graph(script: EncoderScript, target: str) -> Graph:
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if script.token_types else [])]
    return Graph(
        role="encoder",
        target=target,
        path=ENCODER_GRAPH,
        inputs=[Tensor(name, "int64", ["rows", "tokens"]) for name in names],
        outputs=[Tensor("values", "float32", ["rows", script.width])],
        shapes=script.shapes,
    )


def _file(bundle: Path, path: Path) -> File:
    raw = path.read_bytes()
    return File(str(path.relative_to(bundle)), hashlib.sha256(raw).hexdigest(), len(raw))


if __name__ == "__main__":  # python -m tests.tiny FOLDER: a bundle to try servers with
    import sys

    print(msgspec.json.encode(str(write_testing_bundle(Path(sys.argv[1])))).decode())
