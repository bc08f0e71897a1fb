"""The prefix cache's file: what one engine leaves, the next one finds, and nothing else."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from basert.messages import Drain, Sampling
from tests.engines.harness import SteppedEngine
from tests.engines.process import engine_process
from tests.engines.test_determinism import NEW, RecordingSampler, chat
from tests.engines.test_prefix import LOGITS, STORY, cached, words
from tests.tiny import write_testing_bundle


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    return write_testing_bundle(folder, sentence="", max_context=1000, slots=4)


def left(bundle: Path, file: Path) -> dict[int, list[int]]:
    """An engine answers five prompts, of which the first is pushed out, and ends: the other answers."""
    engine = SteppedEngine(bundle, prefix_cache_file=file)
    found = {start: engine.answer(words(start, 100 * start), 3, ignore_eos=True) for start in range(1, 6)}
    engine.engine.save()
    return {start: tokens for start, tokens in found.items() if start > 1}


def hits(engine: SteppedEngine, start: int) -> tuple[list[int], int]:
    number = engine.ask(words(start, 100 * start), 3, ignore_eos=True)
    engine.finish()
    return engine.tokens(number), cached(engine, number)


def test_the_next_engine_goes_on_with_it(long: Path, tmp_path: Path) -> None:
    file = tmp_path / "prefixes"
    answers = left(long, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["prefixes"]
    engine = SteppedEngine(long, prefix_cache_file=file)
    assert 1400 - 4 <= engine.stats().retained_tokens <= 1400  # a last token may have gone another way
    for start, tokens in answers.items():
        assert hits(engine, start) == (tokens, 100 * start - 1)


def test_the_order_of_use_survives(long: Path, tmp_path: Path) -> None:
    left(long, tmp_path / "prefixes")
    engine = SteppedEngine(long, prefix_cache_file=tmp_path / "prefixes")
    engine.answer(words(9, 100), 1)  # pushes out the oldest
    assert [hits(engine, start)[1] for start in (5, 4, 3, 2)] == [499, 399, 299, 0]


def test_a_row_whose_first_token_lay_aside_is_whole_in_the_file(long: Path, tmp_path: Path) -> None:
    engine = SteppedEngine(long, prefix_cache_file=tmp_path / "prefixes")
    streams = [engine.ask(words(7 + i, 90), 40, ignore_eos=True) for i in range(4)]
    engine.step(8)
    engine.cancel(streams[1])
    engine.step(3)
    assert engine.scheduler._slots.prefixes.torn(1)
    engine.finish()
    engine.engine.save()
    engine = SteppedEngine(long, prefix_cache_file=tmp_path / "prefixes")
    number = engine.ask(words(8, 90), 5, ignore_eos=True)
    engine.finish()
    assert cached(engine, number) == 89
    assert engine.tokens(number) == SteppedEngine(long).answer(words(8, 90), 5, ignore_eos=True)


def test_a_smaller_context_takes_what_fits(long: Path, tmp_path: Path) -> None:
    left(long, tmp_path / "prefixes")
    engine = SteppedEngine(long, prefix_cache_file=tmp_path / "prefixes", max_context=350, slots=2)
    prompt = words(5, 340)
    number = engine.ask(prompt, 3, ignore_eos=True)
    engine.finish()
    assert cached(engine, number) == 339
    assert engine.tokens(number) == SteppedEngine(long, max_context=350).answer(prompt, 3, ignore_eos=True)


@pytest.mark.parametrize("damage", ["flipped", "cut", "cut head", "foreign", "empty", "folder"])
def test_a_damaged_file_is_named_and_harms_nothing(
    long: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "prefixes"
    answers = left(long, file)
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 4
    whole = file.read_bytes()
    contents = {"flipped": bytes(raw), "cut": whole[:-5], "cut head": whole[:20], "foreign": b"x" * 999}
    file.unlink()
    if damage == "folder":
        file.mkdir()
    else:
        file.write_bytes(contents.get(damage, b""))
    engine = SteppedEngine(long, prefix_cache_file=file)
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert str(file) in warning
    for start, tokens in answers.items():
        assert hits(engine, start)[0] == tokens
    engine.engine.save()


def test_another_bundle_s_file_is_passed_over(
    long: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left(long, tmp_path / "prefixes")
    other = write_testing_bundle(tmp_path, sentence="", max_context=1000, slots=4, peak=5.0)
    engine = SteppedEngine(other, prefix_cache_file=tmp_path / "prefixes")
    assert "of another bundle or machine" in caplog.text
    assert hits(engine, 2)[1] == 0


def test_what_cannot_be_written_is_named(
    long: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left(long, tmp_path / "missing" / "prefixes")
    assert "cannot be written" in caplog.text


async def test_an_engine_process_writes_it_when_it_is_drained(long: Path, tmp_path: Path) -> None:
    flags = ["--prefix-cache-file", str(tmp_path / "prefixes")]
    for found in (0, 299):
        async with engine_process(long, tmp_path, *flags) as engine:
            worker = await engine.connect()
            await worker.ask(1, words(3, 300), 2, ignore_eos=True)
            assert (await worker.stats()).cached_tokens == found
            engine.tell(Drain())
            assert await engine.end() == 0


def test_w8a8_logits_are_bit_equal_after_a_restart(smollm2_w8a8: Path, tmp_path: Path) -> None:
    prompt, found = chat(smollm2_w8a8, STORY), []
    for _ in range(2):
        engine = SteppedEngine(
            smollm2_w8a8, slots=2, max_context=1024, prefix_cache_file=tmp_path / "prefixes"
        )
        engine.engine._sampler = sampler = RecordingSampler()
        number = engine.ask(prompt, NEW, LOGITS, ignore_eos=True)
        engine.answer(words(1, 50), 2, Sampling(seed=1))
        engine.engine.save()
        found.append((cached(engine, number), sampler.logits[number]))
    assert [tokens for tokens, _ in found] == [0, len(prompt) - 1]
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert np.array_equal(one, other)
