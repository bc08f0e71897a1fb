"""Bundles of speech models that need no model: a listener and a decoder that play a script.

The answer to a window is one of a few sentences between Whisper's special tokens, chosen by what the window
holds (engines.sessions.testing.heard_of). CRASH and RAISE in a prompt do what tests/tiny.py says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tokenizers import Tokenizer

from basert.manifest import (
    GENERATION,
    PARITY,
    SPEECH_GOLDEN,
    TOKENIZER,
    Blob,
    Generation,
    Graph,
    KVCache,
    Speech,
    SpeechCase,
    SpeechGolden,
    SpeechParity,
    Tensor,
    write_json,
)
from engines.sessions.testing import ListenerScript, Script, SpeechScript, heard_of, logits_of
from engines.sounds import draw
from tests.tiny import GRAPH, decoder_graph, tiny_tokenizer, write_testing_manifest

LISTENER_GRAPH = "graphs/listener.json"
SPOKEN = (
    "<|0.00|> Hello world.<|2.00|><|2.00|> Boxing wizards jump.<|4.50|>",
    "<|0.00|> Grüße, world 🌍!<|3.00|>",
    "<|0.50|> The system jumps.<|1.50|><|2.00|> Hello, assistant.<|3.00|><|3.00|> Hello, user.<|29.00|>",
)
LANGUAGES = ("en", "de", "fr")
FRAMES = 1500  # of 0.02 s
WINDOW = 3000  # columns of a log-mel window


def speech_tokenizer(languages: Sequence[str] = LANGUAGES) -> Tokenizer:
    """tiny_tokenizer with Whisper's special tokens, in Whisper's order behind all text."""
    tokenizer = tiny_tokenizer(special=())
    tasks = ["<|translate|>", "<|transcribe|>"] if languages else []
    names = ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    codes = [f"<|{code}|>" for code in languages]
    tokenizer.add_special_tokens(["<|endoftext|>", "<|startoftranscript|>", *codes, *tasks, *names])
    tokenizer.add_special_tokens([f"<|{i * 0.02:.2f}|>" for i in range(FRAMES + 1)])
    return tokenizer


def write_testing_speech(
    folder: Path,
    *,
    name: str = "tiny-speech",
    mels: int = 80,
    max_context: int = 448,
    slots: int = 4,
    sentences: Sequence[str] = SPOKEN,
    languages: Sequence[str] = LANGUAGES,
    alignment_heads: int = 2,
    step_seconds: float = 0.0,
    listen_seconds: float = 0.0,
    load_error: str = "",
    deaf_to: int = -1,
    broken_for_good: bool = False,
    peak: float = 30.0,
    **more: Any,
) -> Path:
    """Write a speech model's bundle named `name` into `folder` and return its path, `folder / name`.

    A window with the number n = engines.sessions.testing.heard_of(Sound.features) is answered with
    sentences[n % len(sentences)], after <|notimestamps|> without its timestamps, and its language is
    languages[n % len(languages)]. Silence (all values equal) has the number 0, a no_speech near 1, and what
    is said of it is unlikely. A token's attention is at frame 10 times its position, prompt included.
    sentences (): a hash of the window and the sequence. languages (): English only. listen_seconds: slept in
    each run of the listener; deaf_to: the number of a window at which it raises. more: fields of the
    manifest's Speech. Other knobs as write_testing_bundle has them.
    """
    bundle = folder / name
    bundle.mkdir(parents=True)
    tokenizer = speech_tokenizer(languages)
    one = tokenizer.token_to_id
    speech = Speech(
        mels=mels,
        frames=FRAMES,
        languages={code: one(f"<|{code}|>") for code in languages},
        sot=one("<|startoftranscript|>"),
        no_timestamps=one("<|notimestamps|>"),
        timestamp_begin=one("<|0.00|>"),
        transcribe=one("<|transcribe|>"),
        translate=one("<|translate|>"),
        previous=one("<|startofprev|>"),
        no_speech=one("<|nospeech|>"),
        alignment_heads=alignment_heads,
        parity={"testing": SpeechParity(0, 0.0, 0, 1.0, 0.0)},
        **_suppressed(tokenizer) | more,
    )
    script = Script(
        vocab_size=tokenizer.get_vocab_size(),
        peak=peak,
        step_seconds=step_seconds,
        crash_id=one("CRASH") if sentences else -1,
        raise_id=one("RAISE") if sentences else -1,
        broken_for_good=broken_for_good,
        speech=_speech_script(tokenizer, speech, sentences),
    )
    listener = ListenerScript(
        step_seconds=listen_seconds, load_error=load_error, raise_id=deaf_to, broken_for_good=broken_for_good
    )
    tokenizer.save(str(bundle / TOKENIZER))
    write_json(bundle / GENERATION, Generation())
    (bundle / PARITY).write_bytes(msgspec.json.encode(speech.parity))
    write_json(bundle / GRAPH, script)
    write_json(bundle / LISTENER_GRAPH, listener)
    write_json(bundle / SPEECH_GOLDEN, SpeechGolden({"testing": 1e-4}, _golden_cases(script, mels)))
    told = {"eos_token_ids": [one("<|endoftext|>")], "max_context": max_context, "slots": slots}
    kv = KVCache(dtype="int64", kv_heads=[1], head_dim=[1])
    graphs = [_listener_graph(mels), _speech_graph(script, alignment_heads)]
    write_testing_manifest(bundle, tokenizer, kv, graphs, family="speech", speech=speech, **told)
    return bundle


def window(number: int, mels: int = 80) -> bytes:
    """Sound.features [mels, 3000] that differ with their number; 0: silence."""
    features = np.full((mels, WINDOW), -1.0, np.float32)
    features[0, :] += np.float32(number) * np.linspace(0, 1, WINDOW, dtype=np.float32)
    return features.tobytes()


def _suppressed(tokenizer: Tokenizer) -> dict[str, list[int]]:
    special = ["<|startoftranscript|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>"]
    special += ["<|startofprev|>", "<|nospeech|>"]
    ids = [tokenizer.token_to_id(token) for token in special]
    first = [tokenizer.token_to_id("<|endoftext|>")]
    return {"suppress": [token for token in ids if token is not None], "suppress_first": first}


def _speech_script(tokenizer: Tokenizer, speech: Speech, sentences: Sequence[str]) -> SpeechScript:
    assert speech.no_speech is not None
    end = tokenizer.token_to_id("<|endoftext|>")
    return SpeechScript(
        sentences=[[*tokenizer.encode(sentence).ids, end] for sentence in sentences],
        sot=speech.sot,
        no_speech=speech.no_speech,
        no_timestamps=speech.no_timestamps,
        timestamp_begin=speech.timestamp_begin,
        languages=list(speech.languages.values()),
    )


def _golden_cases(script: Script, mels: int) -> list[SpeechCase]:
    assert script.speech is not None
    if not script.speech.sentences:
        return []
    sound = [Blob(mel=mels / 2, frame=100.0, height=2.0, rows=mels / 4, columns=40.0)]
    heard = heard_of(draw(sound, mels, WINDOW).tobytes())
    sentence = script.speech.sentences[heard % len(script.speech.sentences)]
    token, prompt = sentence[3], [script.speech.sot, *sentence[:3]]
    ids, logits = [*range(0, script.vocab_size, 50), token], logits_of(script, token, heard)
    return [SpeechCase(prompt, ids, [float(logits[i]) for i in ids], sound)]


def _speech_graph(script: Script, alignment_heads: int) -> Graph:
    """The decoder's graph with what a listener left as further inputs."""
    graph = decoder_graph(script)
    cross = [Tensor(f"cross.0.{kind}", "float32", ["batch", 1, FRAMES, 1]) for kind in ("key", "value")]
    if alignment_heads:
        cross.append(Tensor("align_idx", "int64", ["aligned"]))
        graph.outputs.append(Tensor("alignment", "float32", ["aligned", alignment_heads, FRAMES]))
    return msgspec.structs.replace(graph, inputs=[*graph.inputs, *cross], draft_buckets=[])


def _listener_graph(mels: int) -> Graph:
    return Graph(
        role="listener",
        target="testing",
        path=LISTENER_GRAPH,
        inputs=[Tensor("features", "float32", ["rows", mels, WINDOW])],
        outputs=[Tensor(f"cross.0.{kind}", "float32", ["rows", 1, FRAMES, 1]) for kind in ("key", "value")],
        shapes=[(1, WINDOW)],
    )
