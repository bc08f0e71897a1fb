"""The real SmolLM2: a request's answer does not depend on what shares its batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from basert.manifest import TOKENIZER
from basert.messages import Sampling
from engines.batch import Row, Sample
from engines.sampling import Sampler
from engines.stats import Counters
from tests.engines.harness import SteppedEngine

PROMPT = "What is the capital of France, and what is it known for?"
OTHERS = [
    "Hello!",
    "Write a poem about the sea.",
    "Explain in detail how a bicycle stays upright, and why it is harder to balance when it stands still. "
    * 3,
    "1 2 3 4 5 6 7",
    "Translate to German: The weather is nice today, but it may rain tomorrow.",
]
SAMPLINGS = [
    Sampling(temperature=0.9, top_p=0.95, seed=7),
    Sampling(temperature=0, logit_bias={0: 0.5}),  # greedy, and its logits are fetched
]
NEW = 8

Answer = tuple[list[int], list[NDArray[np.float32]]]  # tokens, and the logits of every step


class RecordingSampler(Sampler):
    """Keeps the logits that each request was drawn from."""

    def __init__(self) -> None:
        super().__init__(Counters())
        self.logits: dict[int, list[NDArray[np.float32]]] = {}

    def _draw(self, row: Row, best: int, logits: NDArray[np.float32] | None) -> Sample:
        if row.sequence is not None and row.draws and logits is not None:
            self.logits.setdefault(row.sequence.submit.id, []).append(logits.copy())
        return super()._draw(row, best, logits)


def chat(bundle: Path, text: str) -> list[int]:
    tokenizer = Tokenizer.from_file(str(bundle / TOKENIZER))
    ids = tokenizer.encode(
        f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False
    )
    return list(ids.ids)


def alone_and_among_fifteen(bundle: Path) -> Iterator[tuple[Answer, Answer]]:
    """The answers to the same requests, each alone and then together among others that come and go."""
    prompt = chat(bundle, PROMPT)
    engine = SteppedEngine(bundle, slots=16, max_context=512)
    engine.engine._sampler = sampler = RecordingSampler()
    alone = []
    for sampling in SAMPLINGS:
        alone.append(engine.ask(prompt, NEW, sampling, ignore_eos=True))
        engine.finish()
    among = []
    for i in range(14):
        engine.ask(chat(bundle, OTHERS[i % 5] * (1 + i % 2)), NEW, Sampling(seed=i), ignore_eos=True)
        if i == 6:
            engine.step(3)
            among = [engine.ask(prompt, NEW, sampling, ignore_eos=True) for sampling in SAMPLINGS]
            engine.step(2)
    engine.finish()
    for first, second in zip(alone, among, strict=True):
        yield (engine.tokens(first), sampler.logits[first]), (engine.tokens(second), sampler.logits[second])


def test_w8a8_logits_are_bit_equal(smollm2_w8a8: Path) -> None:
    for (tokens, logits), (others_tokens, others_logits) in alone_and_among_fifteen(smollm2_w8a8):
        assert others_tokens == tokens
        assert len(logits) == NEW
        for step, (alone, among) in enumerate(zip(logits, others_logits, strict=True)):
            assert np.array_equal(alone, among), f"step {step} differs by {np.abs(alone - among).max()}"


def test_fp32_tokens_are_equal(smollm2_fp32: Path) -> None:
    for (tokens, _), (others_tokens, _) in alone_and_among_fifteen(smollm2_fp32):
        assert others_tokens == tokens


def test_it_answers_a_question(smollm2_fp32: Path) -> None:
    engine = SteppedEngine(smollm2_fp32, slots=2, max_context=256)
    tokens = engine.answer(chat(smollm2_fp32, "What is the capital of France?"), 12)
    tokenizer = Tokenizer.from_file(str(smollm2_fp32 / TOKENIZER))
    assert tokenizer.decode(tokens) == "The capital of France is Paris."


def test_a_long_prompt_scored_takes_bounded_memory(smollm2_fp32: Path) -> None:
    engine = SteppedEngine(smollm2_fp32, slots=2, max_context=512)
    prompt = chat(smollm2_fp32, OTHERS[2] * 3)
    number = engine.ask(prompt, 0, prompt_logprobs=1)
    engine.finish()
    scores = engine.prompt_logprobs(number)
    assert [score.id for score in scores] == prompt[1:]
    assert engine.engine._runner._logits.nbytes <= 32 << 20
    repeated = [score.logprob for score in scores[-60:-20]]  # the third time it knows what comes
    assert np.mean(repeated) > -0.5
