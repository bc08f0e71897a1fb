from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.whisper.generation_whisper import WhisperGenerationMixin

from basert.audio.timestamps import Piece, read

FIRST = 1000


def at(seconds: float) -> int:
    return FIRST + round(seconds / 0.02)


def test_pairs_end_one_piece_and_begin_the_next() -> None:
    tokens = [at(0), 5, 6, at(2), at(2.5), 7, at(4), at(4)]
    found = read(tokens, FIRST, 30)
    assert found.pieces == (
        Piece((at(0), 5, 6, at(2)), 0, 2),
        Piece((at(2.5), 7, at(4)), 2.5, 4),
    )
    assert found.consumed == 4


def test_what_follows_the_last_pair_is_heard_again() -> None:
    found = read([at(0), 5, at(2), at(2), 7, 8], FIRST, 30)
    assert [one.tokens for one in found.pieces] == [(at(0), 5, at(2))]
    assert found.consumed == 2


def test_after_a_single_timestamp_nothing_is_spoken() -> None:
    found = read([at(0), 5, at(2), at(2), 7, at(3)], FIRST, 25)
    assert [(one.start, one.end) for one in found.pieces] == [(0, 2), (2, 3)]
    assert found.consumed == 25


@pytest.mark.parametrize(
    ("tokens", "end"), [([5, 6], 12), ([at(0), 5], 12), ([at(0), 5, at(3)], 3), ([at(99), 5], 12)]
)
def test_without_a_pair_all_is_one_piece(tokens: list[int], end: float) -> None:
    found = read(tokens, FIRST, 12)
    assert found.pieces == (Piece(tuple(tokens), 0, end),)
    assert found.consumed == 12


def test_nothing() -> None:
    assert read([], FIRST, 30).pieces == ()


@given(st.lists(st.integers(FIRST - 3, FIRST + 1500), max_size=20))
def test_it_always_goes_on_and_stays_in_the_window(tokens: list[int]) -> None:
    for length in (30.0, 4.5):
        found = read(tokens, FIRST, length)
        assert 0 < found.consumed <= length
        assert all(0 <= one.start <= one.end <= length for one in found.pieces)


@given(st.lists(st.one_of(st.integers(0, 3), st.integers(FIRST, FIRST + 1500)), min_size=1, max_size=20))
def test_as_transformers_reads_them(tokens: list[int]) -> None:
    segments, frames = WhisperGenerationMixin._retrieve_segment(
        seek_sequence=torch.tensor(tokens),
        seek_outputs=[None],
        time_offset=torch.zeros(1, dtype=torch.float64),
        timestamp_begin=FIRST,
        seek_num_frames=torch.tensor([3000]),
        time_precision=0.02,
        time_precision_features=0.01,
        input_stride=2,
        prev_idx=0,
        idx=0,
        return_token_timestamps=False,
        decoder_input_ids=torch.zeros(1, 4),
    )
    found = read(tokens, FIRST, 30)
    assert [one.start for one in found.pieces] == pytest.approx(
        [max(0, float(one["start"])) for one in segments]
    )
    ends = [max(0, float(one["start"]), float(one["end"])) for one in segments]
    assert [one.end for one in found.pieces] == pytest.approx(ends)
    if float(segments[-1]["end"]) >= float(segments[-1]["start"]) and frames > 0:
        assert found.consumed == pytest.approx(int(frames) / 100)
