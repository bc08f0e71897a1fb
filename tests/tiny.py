"""A bundle that needs no model: a real tokenizer and template over a session that plays a script.

With temperature 0 (or any, as long as `peak` is high) the answer to every prompt is SENTENCE; a prompt that
ends in a beginning of SENTENCE is continued from there. With `ignore_eos` the sentence starts over.
A prompt with the word CRASH kills the engine with SIGKILL; one with RAISE makes its step raise.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from basert import __version__
from basert.manifest import (
    CHAT_TEMPLATE,
    GENERATION,
    GOLDEN,
    MANIFEST,
    PARITY,
    SCHEMA,
    TOKENIZER,
    File,
    Generation,
    Golden,
    GoldenCase,
    Graph,
    KVCache,
    Manifest,
    ParityNumbers,
    Provenance,
    Source,
    Tensor,
    write_json,
)
from engines.sessions.testing import FUSED, Script, logits_of

SENTENCE = " Grüße, world 🌍! Boxing wizards jump."  # several of its tokens hold half a character
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GRAPH = "graphs/decoder.json"


def tiny_tokenizer() -> Tokenizer:
    """A byte-level BPE with ChatML's special tokens and the two magic words as tokens of their own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
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
) -> Path:
    """Write a bundle named `name` into `folder` and return its path, `folder / name`.

    step_seconds, load_seconds: slept in every step and while loading; load_error: refuse to load with this
    sentence; broken_for_good: after RAISE no step works any more; peak: lower it (5) for answers that depend
    on the seed; sentence "": each next token is a hash of the whole sequence before it, no word is magic.
    """
    bundle = folder / name
    bundle.mkdir(parents=True)
    tokenizer = tiny_tokenizer()
    end, crash, fail = (tokenizer.encode(word).ids[0] for word in ("<|im_end|>", "CRASH", "RAISE"))
    played = [*tokenizer.encode(sentence).ids, end] if sentence else []
    script = Script(
        vocab_size=tokenizer.get_vocab_size(),
        sentence=played,
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
    write_json(bundle / MANIFEST, _manifest(bundle, script, end, name, max_context, slots))
    return bundle


_PARITY = ParityNumbers(0, 0.0, 1.0, 0.0, 1.0)


def _golden_case(script: Script) -> GoldenCase:
    ids = [*range(0, script.vocab_size, 50), script.sentence[3]]
    logits = logits_of(script, script.sentence[3])
    return GoldenCase([10, 11, 12, *script.sentence[:3]], ids, [float(logits[i]) for i in ids])


def _manifest(bundle: Path, script: Script, end: int, name: str, max_context: int, slots: int) -> Manifest:
    return Manifest(
        schema=SCHEMA,
        name=name,
        family="decoder",
        variant="fp32",
        variant_reason="asked for",
        vocab_size=script.vocab_size,
        max_context=max_context,
        slots=slots,
        eos_token_ids=[end],
        bos_token_id=None,
        has_chat_template=True,
        kv_cache=KVCache(dtype="int64", kv_heads=[1], head_dim=[1]),
        graphs=[_graph(script)],
        files=[_file(bundle, path) for path in sorted(bundle.rglob("*")) if path.is_file()],
        parity=_PARITY,
        provenance=Provenance(
            source=Source(uri="testing"),
            architecture="Testing",
            exporter="tests/tiny.py",
            basert=__version__,
            versions={"numpy": np.__version__},
            created=0,
            host="any",
        ),
    )


def _graph(script: Script) -> Graph:
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


def _file(bundle: Path, path: Path) -> File:
    raw = path.read_bytes()
    return File(str(path.relative_to(bundle)), hashlib.sha256(raw).hexdigest(), len(raw))


if __name__ == "__main__":  # python -m tests.tiny FOLDER: a bundle to try servers with
    import sys

    print(msgspec.json.encode(str(write_testing_bundle(Path(sys.argv[1])))).decode())
