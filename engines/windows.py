"""Requests to a speech model: is what they are to hear a window of sound? Knows arrays and messages only."""

from __future__ import annotations

import numpy as np

from basert.manifest import Speech
from basert.messages import Submit


def refuse_sound(submit: Submit) -> str:
    """Why a model that hears nothing cannot answer; "" if it can."""
    return "" if submit.sound is None else "This model hears nothing; ask a speech model."


def refuse_silence(speech: Speech, submit: Submit) -> str:
    """Why a speech model cannot answer; "" if it can."""
    if (sound := submit.sound) is None:
        return "This model answers to sound; ask one that generates text."
    if submit.grammar is not None or submit.prompt_logprobs >= 0:
        return "A speech model takes neither a grammar nor prompt_logprobs."
    columns = 2 * speech.frames
    size = 4 * speech.mels * columns
    if len(sound.features) != size:
        return (
            f"A window for this model is float32 [{speech.mels}, {columns}], {size:,} bytes; "
            f"this one has {len(sound.features):,}."
        )
    if not np.isfinite(np.frombuffer(sound.features, "<f4")).all():
        return "The window's features hold values that are no numbers."
    if sound.alignment and not speech.alignment_heads:
        return "This model cannot tell when a word was said: nothing is known of its alignment heads."
    return ""
