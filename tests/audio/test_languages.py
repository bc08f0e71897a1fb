from __future__ import annotations

import pytest
from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from basert.audio.languages import CODES, NAMES, code, name
from basert.errors import InvalidRequest


def test_whispers_hundred_languages() -> None:
    assert NAMES == LANGUAGES
    assert len(NAMES) == 100
    assert {given: CODES[given] for given in TO_LANGUAGE_CODE} == TO_LANGUAGE_CODE


@pytest.mark.parametrize("given", ["en", "EN", "english", " English ", "en-US", "en_GB"])
def test_there_and_back(given: str) -> None:
    assert name(code(given)) == "english"


def test_every_language_both_ways() -> None:
    assert all(code(given) == code(called) == given for given, called in NAMES.items())


@pytest.mark.parametrize("given", ["", "xx", "klingon", "e", "-"])
def test_unknown_languages_are_refused(given: str) -> None:
    with pytest.raises(InvalidRequest, match="not a known language") as caught:
        code(given)
    assert caught.value.param == "language"
