"""The testing session of a speech model as an oracle: what a request must answer, without any engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from basert.manifest import Manifest, Speech, read_manifest
from basert.messages import Message, Submit, Tokens
from engines import loading_speech
from engines.batch import Chunks
from engines.sessions import SessionOptions
from engines.sessions.testing import STEPPED, TestingSession, heard_of, logits_of, open_testing
from engines.speech_rules import SpeechRules
from tests.tiny import GRAPH
from tests.tiny_speech import FRAMES


class Spoken:
    """A bundle's script, played by hand."""

    def __init__(self, bundle: Path) -> None:
        self.manifest: Manifest = read_manifest(bundle)
        assert self.manifest.speech is not None
        self.speech: Speech = self.manifest.speech
        [self.end] = self.manifest.eos_token_ids
        session = open_testing(bundle / GRAPH, self.manifest.kv_cache, SessionOptions(1, 1))
        assert isinstance(session, TestingSession)
        self.session = session
        self.context = self.manifest.max_context
        self._rules = SpeechRules(self.speech, self.end)
        self._chunks = Chunks([8, 32, 64], 64, self.context)  # as the bundle has them

    def answer(self, submit: Submit) -> tuple[list[int], str]:
        """The tokens of a greedy request, and its finish."""
        history, answer = self.history(submit.prompt), list[int]()
        assert submit.sound is not None
        while len(answer) < submit.max_tokens and len(history) < self.context:
            logits = self.logits(history, submit)
            self._rules.hold(logits, answer, submit.sound.timestamps)
            answer.append(int(logits.argmax()))
            history.append(answer[-1] + STEPPED)
            if answer[-1] == self.end:
                return answer, "stop"
        return answer, "length"

    def history(self, prompt: Sequence[int]) -> list[int]:
        history = list(prompt)
        if len(prompt) <= loading_speech.STEPPED:
            return [token + STEPPED for token in prompt]
        if self._chunks.lone(len(history)):
            history[-1] += STEPPED
        return history

    def check_told(self, replies: Sequence[Message], submit: Submit) -> None:
        """What comes beside the tokens: once whether anybody speaks, and where in the sound each token is."""
        told = [reply for reply in replies if isinstance(reply, Tokens)]
        assert all(reply.no_speech == -1 for reply in told[1:])
        if self.speech.sot in submit.prompt:
            assert abs(told[0].no_speech - self._no_speech(submit)) < 1e-5
        else:
            assert told[0].no_speech == -1
        for i, reply in enumerate(told):
            self._check_alignment(reply.alignment, submit, len(submit.prompt) + i)

    def _no_speech(self, submit: Submit) -> float:
        history = self.history(submit.prompt)
        last = max(i for i, token in enumerate(submit.prompt) if token == self.speech.sot)
        logits = self.logits(history[: last + 1], submit).astype(np.float64)
        assert self.speech.no_speech is not None
        return math.exp(logits[self.speech.no_speech] - np.logaddexp.reduce(logits))

    def _check_alignment(self, alignment: bytes, submit: Submit, length: int) -> None:
        assert submit.sound is not None
        if not submit.sound.alignment:
            assert alignment == b""
            return
        attention = np.frombuffer(alignment, "<f2").reshape(1, self.speech.alignment_heads, FRAMES)
        assert (attention.argmax(axis=2) == min(10 * length, FRAMES - 1)).all()

    def logits(self, history: list[int], submit: Submit) -> np.ndarray[Any, np.dtype[np.float32]]:
        assert submit.sound is not None
        heard = heard_of(submit.sound.features)
        token = self.session.next_token(np.array(history), heard)
        return logits_of(self.session.script, token, heard)
