"""Golden cases of speech: what both graphs together answer, to be asked again when an engine loads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from basert.manifest import SpeechCase, SpeechGolden
from export.golden import case_of
from export.speech.graph import read_listener
from export.speech.runner import HearingRunner, ListenerRunner
from export.speech.sounds import speech_like
from export.speech.windows import Window, evaluation_windows

SECONDS = (1.0, 2.0)  # of each case's sound: a few hundred numbers
LENGTHS = (5, 24)  # tokens of each case's prompt
HEADROOM = {"cpu-fp32": 0.005, "cpu-w8a8": 0.75, "openvino-fp32": 0.1, "openvino-w8a8": 0.75}
"""How far a logit may lie off, by the listener's target and the decoder's variant, in standard deviations of
a row of logits.

OpenVINO's listener computes with bfloat16 where the CPU has it: Whisper tiny.en's logits were off by 0.022
(fp32) and 0.29 (w8a8). Noise of 1e-6 on the features moved them by 6e-6 and 0.18 with the CPU's.
"""


def make_golden(checkpoint: Path, graph: Path, variant: str, targets: Sequence[str]) -> SpeechGolden:
    """Cases from the graphs in folder `graph`. targets: those of the listeners."""
    listener, speech = ListenerRunner(graph), read_listener(graph).speech
    runner = HearingRunner(graph, slots=1, max_context=max(LENGTHS))
    texts = evaluation_windows(checkpoint, speech, max(LENGTHS))
    cases, spread = [], 0.0
    for number, (seconds, length) in enumerate(zip(SECONDS, LENGTHS, strict=True)):
        window = Window(speech_like(number, seconds, speech.mels), texts[number].ids[:length])
        runner.hear(0, listener.listen(window.features(speech)[None]))
        case, deviation = case_of(window.ids, runner)
        cases.append(SpeechCase(case.prompt, case.ids, case.logits, window.sound))
        spread = max(spread, deviation)
    return SpeechGolden({target: HEADROOM[f"{target}-{variant}"] * spread for target in targets}, cases)
