from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basert.audio.voice import CHUNK, speech_probabilities
from basert.audio.windows import Detection, Window, cut
from tests.audio.recordings import NAMES, noise, silence, speech, spoken

STEP = CHUNK / 16_000


def windows(samples: np.ndarray, how: Detection | None = None) -> list[Window]:
    return cut(speech_probabilities(samples), len(samples) / 16_000, how)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("snr", "brown"), [(None, False), (20, False), (5, False), (5, True)])
def test_speech_is_found_whatever_the_noise(name: str, snr: float | None, brown: bool) -> None:
    """Silence around a sentence: that is held whole, and next to nothing else is."""
    samples = np.concatenate([silence(3), speech(name), silence(3)])
    if snr is not None:
        power = float(np.mean(speech(name) ** 2)) / 10 ** (snr / 10)
        samples = samples + noise(len(samples) / 16_000 + 1, power, brown=brown)[: len(samples)]
    first, last = (3 + time for time in spoken(name))
    (found,) = windows(samples)
    assert first - 0.75 < found.start < first + 0.1
    assert last - 0.1 < found.end < last + 0.75


def test_neither_silence_nor_noise_gives_windows() -> None:
    assert windows(silence(0)) == []
    assert windows(silence(9)) == []
    for brown in (False, True):
        for power in (1e-6, 1e-2):
            assert windows(noise(9, power, brown=brown)) == []


def test_long_recordings_are_cut_at_silence() -> None:
    """Ten sentences, 53 s with pauses: each lies whole in one window, and no window is longer than 30 s."""
    parts, times, at = [], [], 0.0
    for name in NAMES * 2:
        first, last = spoken(name)
        times.append((at + first, at + last))
        parts += [speech(name), silence(0.4)]
        at += len(speech(name)) / 16_000 + 0.4
    found = windows(np.concatenate(parts))
    assert len(found) == 2
    assert all(one.end - one.start <= 30 for one in found)
    for first, last in times:
        middle = (first + last) / 2
        (holder,) = [one for one in found if one.start <= middle <= one.end]
        assert holder.start < first + 0.1
        assert last - 0.1 < holder.end


def test_what_servers_vad_can_be_told() -> None:
    samples = np.concatenate([silence(1), speech(NAMES[1]), silence(0.6), speech(NAMES[4]), silence(1)])
    ranges = {ms: windows(samples, Detection(silence_duration_ms=ms))[0].speech for ms in (200, 3000)}
    assert len(ranges[200]) > len(ranges[3000]) == 1
    early = windows(samples, Detection(prefix_padding_ms=800))[0].start
    assert early == pytest.approx(windows(samples, Detection(prefix_padding_ms=0))[0].start - 0.8)
    quiet = samples + noise(12, 0.02)[: len(samples)]
    lengths = [
        sum(
            end - start for one in windows(quiet, Detection(threshold=threshold)) for start, end in one.speech
        )
        for threshold in (0.1, 0.5, 0.99)
    ]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[2]


def test_talk_without_a_pause_is_cut_where_it_is_least_like_speech() -> None:
    probabilities = np.full(int(70 / STEP), 0.9, np.float32)
    dips = [int(22 / STEP), int(45 / STEP)]
    probabilities[dips] = 0.6
    found = cut(probabilities, 70.0)
    ends = [one.end for one in found]
    assert ends == pytest.approx([(dips[0] + 0.5) * STEP, (dips[1] + 0.5) * STEP, 70.0])
    assert [one.start for one in found] == pytest.approx([0.0, *ends[:2]])


@given(
    st.lists(st.tuples(st.floats(0, 1, width=32, allow_subnormal=False), st.integers(1, 1200)), max_size=8),
    st.floats(0, 1, allow_subnormal=False),
    st.integers(0, 2000),
    st.integers(0, 2000),
    st.floats(0, CHUNK - 1, allow_subnormal=False),
)
def test_windows_hold_together(
    runs: list[tuple[float, int]], threshold: float, padding: int, patience: int, missing: float
) -> None:
    """In order, apart, inside the recording, at most 30 s; all that is surely speech is in one of them."""
    probabilities = np.repeat([one[0] for one in runs], [one[1] for one in runs]).astype(np.float32)
    duration = max(0.0, len(probabilities) * STEP - missing / 16_000)
    found = cut(probabilities, duration, Detection(threshold, padding, patience))
    times = [time for one in found for piece in one.speech for time in piece]
    assert times == sorted(times)
    assert not times or (times[0] >= 0 and times[-1] <= duration)
    for one in found:
        assert (one.start, one.end) == (one.speech[0][0], one.speech[-1][1])
        assert 0 <= one.end - one.start <= 30 + 1e-9
    at = 0
    for probability, count in runs:
        if probability >= threshold and count * STEP >= 0.2:
            middle = (at + count / 2) * STEP
            assert any(one.start <= middle <= one.end for one in found)
        at += count
