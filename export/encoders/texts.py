"""What encoders are measured and calibrated with: the shipped texts, cut into inputs of many lengths."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tokenizers import Tokenizer

from basert.manifest import TOKENIZER, Encoder
from export import prose
from export.encoders.runner import Input

LONGEST = 512  # tokens of an input, where the encoder takes as many
SHORT = 4  # paragraphs that are measured by their first words as well
Text = str | tuple[str, str]


def evaluation_inputs(checkpoint: Path, encoder: Encoder) -> list[list[Input]]:
    """Groups of inputs whose answers are ranked against each other: by query for pairs, else one group."""
    paragraphs = _paragraphs(prose.evaluation())
    if encoder.pairs:
        queries = [_question(paragraph) for paragraph in paragraphs[:: len(paragraphs) // 4]]
        return [
            inputs_of(checkpoint, encoder, [(query, paragraph) for paragraph in paragraphs])
            for query in queries
        ]
    return [inputs_of(checkpoint, encoder, _mixed(paragraphs, prose.evaluation()))]


def calibration_inputs(checkpoint: Path, encoder: Encoder) -> list[Input]:
    """Other texts than the evaluation's."""
    paragraphs = _paragraphs(prose.calibration())
    texts: list[Text] = list(_mixed(paragraphs, prose.calibration()))
    if encoder.pairs:
        texts = [(_question(one), two) for one, two in pairwise(paragraphs)]
    return inputs_of(checkpoint, encoder, texts)


def inputs_of(checkpoint: Path, encoder: Encoder, texts: Sequence[Text]) -> list[Input]:
    """Tokenised with special tokens; cut to what the encoder takes, and to LONGEST."""
    tokenizer = Tokenizer.from_file(str(checkpoint / TOKENIZER))
    tokenizer.enable_truncation(min(LONGEST, encoder.max_tokens))
    encoded = [
        tokenizer.encode(*text) if isinstance(text, tuple) else tokenizer.encode(text) for text in texts
    ]
    return [Input(one.ids, one.type_ids) for one in encoded if one.ids]


def _paragraphs(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _mixed(paragraphs: list[str], whole: str) -> list[Text]:
    """Every paragraph, some first words, and two texts that are longer than any encoder takes or LONGEST."""
    words = [" ".join(paragraph.split()[: 1 + index]) for index, paragraph in enumerate(paragraphs[:SHORT])]
    return [*words, *paragraphs, whole, whole[len(whole) // 2 :]]


def _question(paragraph: str) -> str:
    """A paragraph's first words, as a query for it."""
    return " ".join(paragraph.split()[:8])
