"""POST /v1/audio/transcriptions over a fake model: real sound in, what the model says of it out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from falcon.testing import ASGIConductor

from basert.audio import quality
from basert.audio.features import log_mel
from basert.errors import EngineFailed, Overloaded
from basert.messages import Submit, Tokens
from tests.audio.recordings import NAMES, silence, speech
from tests.audio.sounds import written
from tests.http.asking import typed_events
from tests.http.fakes import FakeModel, FakeModels, Said
from tests.http.hearing import ask, long, post, refused, wav, window_of
from tests.tiny_speech import SPOKEN


@pytest.fixture
def whisper(models: FakeModels) -> FakeModel:
    return models.add_speech()


@pytest.fixture
def english(models: FakeModels) -> FakeModel:
    return models.add_speech(languages=())


def prompt(model: FakeModel, number: int = -1) -> str:
    return model.text.decode(model.engine.requests[number].prompt, skip_special=False)


def asked(model: FakeModel) -> list[Submit]:
    """What was asked beside languages."""
    return [one for one in model.engine.requests if not one.allowed_ids]


async def test_json_is_text_and_usage(client: ASGIConductor, whisper: FakeModel) -> None:
    answer = await ask(client, language="en")
    seconds = round(len(speech()) / 16_000, 2)
    assert answer == {
        "text": "Hello world. Boxing wizards jump.",
        "usage": {"type": "duration", "seconds": seconds},
    }
    assert prompt(whisper) == "<|startoftranscript|><|en|><|transcribe|><|notimestamps|>"
    assert len(whisper.engine.requests) == 1


async def test_the_model_hears_the_speech_and_no_silence(client: ASGIConductor, whisper: FakeModel) -> None:
    """Its features are those of the window that was cut out, wherever that lies in the recording."""
    padded = np.concatenate([silence(40), speech(), silence(20)])
    await ask(client, file=wav(padded), language="en")
    (heard,) = asked(whisper)
    assert heard.sound is not None
    told = np.frombuffer(heard.sound.features, "<f4").reshape(80, 3000)
    assert (told.std(axis=0) > 0.01).sum() == pytest.approx(len(speech()) / 160, abs=80)


async def test_all_of_a_short_recording_is_heard_without_detection(
    client: ASGIConductor, whisper: FakeModel
) -> None:
    await ask(client, language="en", vad_filter="false")
    (heard,) = asked(whisper)
    assert heard.sound is not None
    told = np.frombuffer(heard.sound.features, "<f4").reshape(80, 3000)
    samples = (speech() * 32767).astype("<i2").astype(np.float32) / 32768
    assert np.array_equal(told, log_mel(samples))


async def test_text(client: ASGIConductor, whisper: FakeModel) -> None:
    result = await post(client, response_format="text", language="en")
    assert result.headers["content-type"] == "text/plain; charset=utf-8"
    assert result.text == "Hello world. Boxing wizards jump.\n"


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (
            "srt",
            "1\n00:00:{0},000 --> 00:00:{2},000\nHello world.\n\n"
            "2\n00:00:{2},000 --> 00:00:{4},500\nBoxing wizards jump.\n\n",
        ),
        (
            "vtt",
            "WEBVTT\n\n00:00:{0}.000 --> 00:00:{2}.000\nHello world.\n\n"
            "00:00:{2}.000 --> 00:00:{4}.500\nBoxing wizards jump.\n\n",
        ),
    ],
)
async def test_subtitles(client: ASGIConductor, whisper: FakeModel, form: str, body: str) -> None:
    result = await post(client, response_format=form, language="en", vad_filter="0")
    assert result.headers["content-type"] == "text/plain; charset=utf-8"
    assert result.text == body.format("00", "", "02", "", "04")
    assert prompt(whisper, 0) == "<|startoftranscript|><|en|><|transcribe|>"


async def test_verbose_json_has_all_ten_fields(client: ASGIConductor, whisper: FakeModel) -> None:
    answer = await ask(client, response_format="verbose_json", language="German")
    seek = answer["segments"][0]["seek"]
    start, plain = seek / 100, answer["segments"][0]["start"]
    assert 0 < start < plain < 1  # the window has some of what comes before speech
    ids = whisper.text.encode(SPOKEN[0], add_special=False)
    text = "Hello world. Boxing wizards jump."
    ratio = quality.compression_ratio(text)
    common = {
        "seek": seek,
        "temperature": 0.0,
        "avg_logprob": -0.25,
        "compression_ratio": ratio,
        "no_speech_prob": 0.01,
    }
    middle = ids.index(whisper.text.encode("<|2.00|>")[0]) + 1
    seconds = round(len(speech()) / 16_000, 2)
    assert answer == {
        "task": "transcribe",
        "language": "german",
        "duration": seconds,
        "text": text,
        "segments": [
            {
                "id": 0,
                "start": plain,
                "end": round(start + 2, 2),
                "text": " Hello world.",
                "tokens": ids[:middle],
                **common,
            },
            {
                "id": 1,
                "start": round(start + 2, 2),
                "end": round(start + 4.5, 2),
                "text": " Boxing wizards jump.",
                "tokens": ids[middle:],
                **common,
            },
        ],
        "usage": {"type": "duration", "seconds": seconds},
    }


@pytest.mark.parametrize("name", ["timestamp_granularities[]", "timestamp_granularities"])
async def test_words(client: ASGIConductor, whisper: FakeModel, name: str) -> None:
    """The n-th token of the answer, timestamps counted, looks at the n-th tenth of a second."""
    fields = {"response_format": "verbose_json", "language": "en", "vad_filter": "false"}
    answer = await ask(client, (name, "word"), **fields)
    assert "segments" not in answer
    assert [one["word"] for one in answer["words"]] == ["Hello", "world.", "Boxing", "wizards", "jump."]
    assert whisper.engine.requests[0].prompt == whisper.text.encode(
        "<|startoftranscript|><|en|><|transcribe|>"
    )
    spoken = whisper.text.encode(SPOKEN[0], add_special=False)
    at = {
        word: spoken.index(whisper.text.encode(word, add_special=False)[0]) for word in (" world", " wizards")
    }
    starts = {one["word"]: one["start"] for one in answer["words"]}
    assert starts["world."] == pytest.approx(at[" world"] / 10, abs=0.05)
    assert starts["wizards"] == pytest.approx(at[" wizards"] / 10, abs=0.05)
    both = await ask(client, (name, "word"), (name, "segment"), **fields)
    assert (len(both["segments"]), both["words"]) == (2, answer["words"])


async def test_logprobs(client: ASGIConductor, whisper: FakeModel) -> None:
    answer = await ask(client, ("include[]", "logprobs"), language="en")
    told = answer["logprobs"]
    assert (
        bytes(byte for one in told for byte in one["bytes"]).decode() == " Hello world. Boxing wizards jump."
    )
    assert {one["logprob"] for one in told} == {-0.25}


class TestLanguages:
    async def test_it_is_found_out(self, client: ASGIConductor, whisper: FakeModel) -> None:
        answer = await ask(client, response_format="verbose_json")
        assert answer["language"] == "german"
        finding, hearing = whisper.engine.requests
        speech = whisper.manifest.speech
        assert (finding.prompt, finding.max_tokens) == ([speech.sot], 1)
        assert set(finding.allowed_ids) == set(speech.languages.values())
        assert finding.sound.features == hearing.sound.features
        assert prompt(whisper) == "<|startoftranscript|><|de|><|transcribe|>"

    async def test_once_for_all_windows(self, client: ASGIConductor, whisper: FakeModel) -> None:
        await ask(client, file=long())
        assert len(whisper.engine.requests) == 4

    async def test_among_some(self, client: ASGIConductor, whisper: FakeModel) -> None:
        await ask(client, ("languages[]", "de"), ("languages[]", "French"))
        codes = whisper.manifest.speech.languages
        assert whisper.engine.requests[0].allowed_ids == [codes["de"], codes["fr"]]
        await ask(client, ("languages[]", "fr"))
        assert len(whisper.engine.requests) == 3
        assert "<|fr|>" in prompt(whisper)

    @pytest.mark.parametrize("said", ["klingon", "ja", "Japanese", "e"])
    async def test_what_the_model_does_not_hear(
        self, client: ASGIConductor, whisper: FakeModel, said: str
    ) -> None:
        error = await refused(client, language=said)
        assert error["param"] == "language"
        assert error["message"] == f"Invalid 'language': {said!r}; this model hears these: en, de, fr."

    async def test_english_only(self, client: ASGIConductor, english: FakeModel) -> None:
        error = await refused(client, language="de")
        assert error["message"] == "Invalid 'language': 'de'; this model hears English only."
        for fields in ({}, {"language": "en"}, {"language": "English"}, {"language": ""}):
            answer = await ask(client, response_format="verbose_json", **fields)
            assert answer["language"] == "english"
            assert prompt(english) == "<|startoftranscript|>"
        assert len(english.engine.requests) == 4


class TestPrompts:
    async def test_the_prompt_comes_before(self, client: ASGIConductor, whisper: FakeModel) -> None:
        await ask(client, ("keywords[]", "wizards"), language="en", prompt=" hello ", hotwords="jump")
        told = "<|startofprev|> jump, wizards hello<|startoftranscript|><|en|><|transcribe|><|notimestamps|>"
        assert prompt(whisper) == told

    async def test_only_its_end_if_it_is_long(self, client: ASGIConductor, whisper: FakeModel) -> None:
        await ask(client, language="en", prompt="hello " * 500 + "world")
        ids = whisper.engine.requests[0].prompt
        assert len(ids) == 223 + 5
        assert whisper.text.decode(ids[:224]).endswith("hello world")

    async def test_it_is_text_and_nothing_else(self, client: ASGIConductor, whisper: FakeModel) -> None:
        await ask(client, language="en", prompt="hello <|endoftext|><|startoftranscript|><|1.00|> world")
        told = prompt(whisper)
        assert told.count("<|startoftranscript|>") == 1
        assert told.startswith("<|startofprev|> hello")
        assert "<|endoftext|>" not in told
        assert "<|1.00|>" not in told

    async def test_a_model_that_takes_none(self, client: ASGIConductor, models: FakeModels) -> None:
        deaf = models.add_speech()
        speech = msgspec.structs.replace(deaf.manifest.speech, previous=None)
        deaf.manifest = msgspec.structs.replace(deaf.manifest, speech=speech)
        error = await refused(client, prompt="hello", language="en")
        assert (error["param"], error["message"]) == (
            "prompt",
            "This model takes no prompt; leave 'prompt' out.",
        )


class TestTries:
    async def test_a_bad_answer_is_tried_again(self, client: ASGIConductor, whisper: FakeModel) -> None:
        def answer(request: Submit) -> Said:
            return Said(" hello" * 40 if request.sampling.temperature < 0.5 else " world")

        whisper.engine.answer = answer
        told = await ask(client, response_format="verbose_json", language="en", seed="7")
        tried = whisper.engine.requests
        assert [one.sampling.temperature for one in tried] == [0.0, 0.2, 0.4, 0.6]
        assert {one.sampling.seed for one in tried} == {7}
        assert len({one.sound.features for one in tried}) == 1
        assert [(one["text"], one["temperature"]) for one in told["segments"]] == [(" world", 0.6)]

    async def test_chance_plays_no_part_unless_it_is_asked_for(
        self, client: ASGIConductor, whisper: FakeModel
    ) -> None:
        whisper.engine.answer = lambda request: Said(" hello" * 40)
        for _ in range(2):
            await ask(client, language="en")
        assert {one.sampling.seed for one in whisper.engine.requests} == {0}
        whisper.engine.requests.clear()
        for _ in range(2):
            await ask(client, language="en", temperature="0.7")
        assert len({one.sampling.seed for one in whisper.engine.requests}) == 2

    async def test_the_last_answer_holds(self, client: ASGIConductor, whisper: FakeModel) -> None:
        whisper.engine.answer = lambda _: Said(" hello", logprob=-1.5)
        assert (await ask(client, language="en"))["text"] == "hello"
        assert len(whisper.engine.requests) == 6

    @pytest.mark.parametrize(
        "fields", [{"temperature": "0.3"}, {"log_prob_threshold": "-2"}, {"temperature": "1"}]
    )
    async def test_once_if_asked(
        self, client: ASGIConductor, whisper: FakeModel, fields: dict[str, str]
    ) -> None:
        whisper.engine.answer = lambda _: Said(" hello", logprob=-1.5)
        assert (await ask(client, language="en", **fields))["text"] == "hello"
        (request,) = whisper.engine.requests
        assert request.sampling.temperature == float(fields.get("temperature", 0))

    async def test_the_thresholds(self, client: ASGIConductor, whisper: FakeModel) -> None:
        whisper.engine.answer = lambda _: Said(" hello" * 40)
        await ask(client, language="en", compression_ratio_threshold="50")
        assert len(whisper.engine.requests) == 1

    async def test_of_silence_nothing_is_left(self, client: ASGIConductor, whisper: FakeModel) -> None:
        whisper.engine.answer = lambda _: Said(" Thanks for watching!", logprob=-1.5, no_speech=0.7)
        answer = await ask(client, response_format="verbose_json", language="en")
        assert (answer["text"], answer["segments"]) == ("", [])
        assert len(whisper.engine.requests) == 1
        answer = await ask(client, language="en", no_speech_threshold="0.8")
        assert answer["text"] == "Thanks for watching!"

    async def test_an_answer_that_breaks_off_is_asked_for_with_times(
        self, client: ASGIConductor, whisper: FakeModel
    ) -> None:
        """They tell where to go on."""

        def answer(request: Submit) -> Said:
            if not request.sound.timestamps:
                return Said(" hello", finish="length")
            if len(asked(whisper)) == 2:
                return Said("<|0.00|> Hello<|2.00|><|2.00|> wor", finish="length")
            return Said("<|0.00|> world<|2.00|>")

        whisper.engine.answer = answer
        assert (await ask(client, language="en"))["text"] == "Hello world"
        assert [one.sound.timestamps for one in asked(whisper)] == [False, True, False, True]

    async def test_max_completion_tokens(self, client: ASGIConductor, whisper: FakeModel) -> None:
        await ask(client, language="en")
        await ask(client, language="en", max_completion_tokens="7")
        assert [one.max_tokens for one in whisper.engine.requests] == [224, 7]


class TestWindows:
    async def test_side_by_side_and_in_order(self, client: ASGIConductor, whisper: FakeModel) -> None:
        """Each is answered when all behind it are."""
        engine = whisper.engine
        plain, answered = engine.generate, asyncio.Condition()
        order: list[int] = []

        async def generate(request: Submit) -> AsyncGenerator[Tokens, None]:
            number = window_of(request)
            async with answered:
                await answered.wait_for(lambda: len(order) == 2 - number)
                order.append(number)
                answered.notify_all()
            async for said in plain(request):
                yield said

        engine.answer = lambda request: Said(f" {window_of(request)}")
        engine.generate = generate
        assert (await ask(client, file=long(), language="en"))["text"] == "0 1 2"
        assert order == [2, 1, 0]

    async def test_at_most_eight_at_once(self, client: ASGIConductor, whisper: FakeModel) -> None:
        engine = whisper.engine
        plain, more = engine.generate, asyncio.Condition()
        begun: list[int] = []

        async def generate(request: Submit) -> AsyncGenerator[Tokens, None]:
            async with more:
                begun.append(len(begun))
                more.notify_all()
                await more.wait_for(lambda: len(begun) >= 8)
            async for said in plain(request):
                yield said

        engine.generate = generate
        await ask(client, file=long(9), language="en")
        assert len(begun) == 9
        assert engine.most_open <= 8

    async def test_one_after_another_each_with_the_text_before(
        self, client: ASGIConductor, whisper: FakeModel
    ) -> None:
        whisper.engine.answer = lambda _: Said(f"<|0.00|> window {len(asked(whisper))}<|2.00|>")
        fields = {"language": "en", "prompt": "jump", "condition_on_previous_text": "true"}
        answer = await ask(client, file=long(), **fields)
        assert answer["text"] == "window 1 window 2 window 3"
        assert whisper.engine.most_open == 1
        told = "<|startofprev|> jump{}<|startoftranscript|><|en|><|transcribe|>"
        said = ["<|0.00|> window 1<|2.00|>", "<|0.00|> window 2<|2.00|>"]
        assert [prompt(whisper, n) for n in range(3)] == [
            told.format(""),
            told.format(said[0]),
            told.format("".join(said)),
        ]

    async def test_hot_text_is_no_prompt(self, client: ASGIConductor, whisper: FakeModel) -> None:
        def answer(request: Submit) -> Said:
            return Said("<|0.00|> hello<|2.00|>", logprob=-0.1 if request.sampling.temperature > 0.5 else -2)

        whisper.engine.answer = answer
        await ask(client, file=long(2), language="en", condition_on_previous_text="true")
        assert "<|startofprev|>" not in prompt(whisper)

    async def test_timestamps_tell_where_to_go_on(self, client: ASGIConductor, whisper: FakeModel) -> None:
        """Without detection, 36 s of sound are heard from 0 on, then from where the last pair of times is."""
        said = [
            Said("<|0.00|> hello<|20.00|><|20.00|> the<|28.00|><|28.00|> wor"),
            Said("<|0.00|> world<|4.00|>"),
        ]
        whisper.engine.answer = lambda _: said[(len(asked(whisper)) - 1) % 2]
        sound = np.concatenate([speech(), silence(36)])[: 36 * 16_000]
        answer = await ask(
            client, file=wav(sound), language="en", vad_filter="false", response_format="verbose_json"
        )
        assert [(one["seek"], one["start"], one["end"]) for one in answer["segments"]] == [
            (0, 0.0, 20.0),
            (0, 20.0, 28.0),
            (2800, 28.0, 32.0),
        ]
        second = np.frombuffer(asked(whisper)[1].sound.features, "<f4").reshape(80, 3000)
        heard = (sound * 32767).astype("<i2").astype(np.float32)[28 * 16_000 :] / 32768
        assert np.array_equal(second, log_mel(heard))
        assert prompt(whisper).startswith("<|startofprev|><|0.00|> hello")
        await ask(client, file=wav(sound), language="en", vad_filter="0", condition_on_previous_text="0")
        assert len(asked(whisper)) == 4
        assert "<|startofprev|>" not in prompt(whisper)

    async def test_what_is_written_for_silence_is_left_out(
        self, client: ASGIConductor, whisper: FakeModel
    ) -> None:
        """Speech, 8 s of nothing, speech: one window, and a segment where nobody speaks."""
        first = speech(NAMES[1])
        sound = np.concatenate([first, silence(8), speech(NAMES[1])])
        middle = len(first) / 16_000
        text = f"<|0.00|> hello<|2.00|><|{middle + 2:.1f}0|> Thanks!<|{middle + 5:.1f}0|>"
        whisper.engine.answer = lambda _: Said(text + f"<|{middle + 8:.1f}0|> world<|{middle + 9:.1f}0|>")
        answer = await ask(client, file=wav(sound), language="en", response_format="verbose_json")
        assert answer["text"] == "hello world"

    async def test_silence_asks_the_model_nothing(self, client: ASGIConductor, whisper: FakeModel) -> None:
        answer = await ask(client, file=wav(silence(5)), response_format="verbose_json")
        assert (answer["text"], answer["segments"], answer["duration"]) == ("", [], 5.0)
        assert whisper.engine.requests == []
        streamed = await post(client, file=wav(silence(5)), stream="true")
        (done,) = typed_events(streamed.text)
        assert (done["type"], done["text"]) == ("transcript.text.done", "")

    @pytest.mark.parametrize(
        "how",
        [
            [("chunking_strategy", '{"type": "server_vad", "silence_duration_ms": 9000}')],
            [("chunking_strategy[type]", "server_vad"), ("chunking_strategy[silence_duration_ms]", "9000")],
        ],
    )
    async def test_how_speech_is_told_from_silence(
        self, client: ASGIConductor, whisper: FakeModel, how: list[tuple[str, str]]
    ) -> None:
        """With patience for 9 s the 8 s of silence are heard, and what is written for them stays."""
        first = speech(NAMES[1])
        middle = len(first) / 16_000
        text = f"<|0.00|> hello<|2.00|><|{middle + 3:.1f}0|> and<|{middle + 5:.1f}0|>"
        whisper.engine.answer = lambda _: Said(text)
        fields = {"file": wav(np.concatenate([first, silence(8), first])), "language": "en"}
        answer = await ask(client, *how, response_format="verbose_json", **fields)
        assert answer["text"] == "hello and"
        answer = await ask(client, ("chunking_strategy", "auto"), response_format="verbose_json", **fields)
        assert answer["text"] == "hello"


class TestStreams:
    async def test_events(self, client: ASGIConductor, whisper: FakeModel) -> None:
        whisper.engine.answer = lambda request: Said(f" window {window_of(request)}")
        result = await post(client, ("include", "logprobs"), file=long(2), language="en", stream="true")
        assert result.headers["content-type"] == "text/event-stream; charset=utf-8"
        *deltas, done = typed_events(result.text)
        assert [one["type"] for one in deltas] == ["transcript.text.delta"] * 2
        assert "".join(one["delta"] for one in deltas) == done["text"] == "window 0 window 1"
        assert done["type"] == "transcript.text.done"
        assert done["usage"]["output_tokens"] == done["usage"]["total_tokens"]
        scored = [score for one in deltas for score in one["logprobs"]]
        assert scored == done["logprobs"]
        ends = [one["end"] for one in deltas]
        assert 0 < ends[0] < ends[1] <= deltas[0]["duration"]

    @pytest.mark.parametrize("form", ["text", "srt", "vtt"])
    async def test_the_deltas_are_the_whole_answer(
        self, client: ASGIConductor, whisper: FakeModel, form: str
    ) -> None:
        fields = {"file": long(2), "language": "en", "response_format": form}
        plain = (await post(client, **fields)).text
        *deltas, done = typed_events((await post(client, stream="true", **fields)).text)
        assert len(deltas) == 2 if form == "text" else 4
        assert (
            "".join(one["delta"] for one in deltas)
            == done["text"]
            == plain.removesuffix("\n" * (form == "text"))
        )

    async def test_verbose_json_comes_with_the_last_event(
        self, client: ASGIConductor, whisper: FakeModel
    ) -> None:
        fields = {"language": "en", "response_format": "verbose_json"}
        plain = await ask(client, **fields)
        done = typed_events((await post(client, stream="true", **fields)).text)[-1]
        assert {name: done[name] for name in plain if name != "usage"} == {
            name: value for name, value in plain.items() if name != "usage"
        }

    async def test_a_failure_before_anything_was_heard_is_a_status(
        self, client: ASGIConductor, whisper: FakeModel
    ) -> None:
        whisper.engine.error = Overloaded("The queue is full.")
        error = await refused(client, status=429, stream="true", language="en")
        assert error["code"] == "queue_full"
        assert (await refused(client, status=429, language="en")) == error

    async def test_a_later_failure_is_the_last_event(self, client: ASGIConductor, whisper: FakeModel) -> None:
        whisper.engine.error, whisper.engine.error_after = EngineFailed("It died."), 1
        fields = {"condition_on_previous_text": "1", "stream": "1", "language": "en"}
        result = await post(client, file=long(2), **fields)
        *first, last, _ = result.text.split("\n\n")
        assert all('"delta"' in one for one in first)
        assert last.startswith('data: {"error":{"message":"It died."')


async def test_a_full_queue_is_waited_for_once_something_was_heard(
    client: ASGIConductor, whisper: FakeModel
) -> None:
    engine = whisper.engine
    plain, refusals = engine.generate, 0

    async def generate(request: Submit) -> AsyncGenerator[Tokens, None]:
        nonlocal refusals
        if engine.requests and refusals < 2:
            refusals += 1
            raise Overloaded("The queue is full.", retry_after=0.001)
        async for said in plain(request):
            yield said

    engine.generate = generate
    engine.answer = lambda _: Said(" hello")
    fields = {"language": "en", "condition_on_previous_text": "1"}
    assert (await ask(client, file=long(2), **fields))["text"] == "hello hello"
    assert refusals == 2


async def test_translations(client: ASGIConductor, whisper: FakeModel) -> None:
    path = "/v1/audio/translations"
    answer = await ask(client, path=path, response_format="verbose_json")
    assert (answer["language"], answer["task"]) == ("english", "translate")
    assert prompt(whisper) == "<|startoftranscript|><|de|><|translate|>"
    assert (await ask(client, path=path, language="fr"))["text"] == "Hello world. Boxing wizards jump."


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities"),
        (
            {"timestamp_granularities[]": "letter", "response_format": "verbose_json"},
            "timestamp_granularities",
        ),
        ({"include[]": "logprobs", "response_format": "text"}, "include"),
        ({"include[]": "everything"}, "include"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"temperature": "1.5"}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"stream": "perhaps"}, "stream"),
        ({"chunking_strategy": "{"}, "chunking_strategy"),
        ({"chunking_strategy": '{"type": "client_vad"}'}, "chunking_strategy.type"),
        ({"chunking_strategy": '{"type": "server_vad", "threshold": 2}'}, "chunking_strategy.threshold"),
        ({"chunking_strategy": "auto", "vad_filter": "false"}, "chunking_strategy"),
        ({"language": "en", "languages[]": "de"}, "languages"),
        ({"known_speaker_names[]": "Jane"}, "known_speaker_names"),
        ({"max_completion_tokens": "0"}, "max_completion_tokens"),
        ({"seed": "one"}, "seed"),
        ({"model": ""}, "model"),
        ({"model": "org/tiny"}, "model"),
    ],
)
async def test_refusals(
    client: ASGIConductor, whisper: FakeModel, fields: dict[str, str], param: str
) -> None:
    error = await refused(client, **fields)
    assert error["param"].partition("[")[0] == param
    assert whisper.engine.requests == []


async def test_what_can_do_it_is_named(client: ASGIConductor, whisper: FakeModel, models: FakeModels) -> None:
    models.add_speech("listener", languages=())
    error = await refused(client, model="org/tiny")
    assert error["message"] == (
        "The model 'org/tiny' generates text; ask for one that transcribes speech: whisper, listener."
    )
    error = await refused(client, model="listener", path="/v1/audio/translations")
    assert error["message"].endswith("transcribes speech; ask for one that translates speech: whisper.")
    chat = {"model": "whisper", "messages": [{"role": "user", "content": "Hi"}]}
    result = await client.simulate_post("/v1/chat/completions", json=chat)
    assert result.status_code == 400
    assert result.json["error"]["message"] == (
        "The model 'whisper' transcribes speech; ask for one that generates text: org/tiny."
    )


async def test_the_list_of_models(client: ASGIConductor, whisper: FakeModel, models: FakeModels) -> None:
    models.add_speech("listener", languages=())
    listed = {one["id"]: one for one in (await client.simulate_get("/v1/models")).json["data"]}
    told = [
        listed[name][key] for name in ("whisper", "listener") for key in ("task", "languages", "translates")
    ]
    assert told == ["transcribe", ["en", "de", "fr"], True, "transcribe", ["en"], False]
    assert "languages" not in listed["org/tiny"]


async def test_figures(client: ASGIConductor, whisper: FakeModel) -> None:
    whisper.engine.answer = lambda request: Said(
        " hello", logprob=-2 if not request.sampling.temperature else 0
    )
    await ask(client, file=long(2), language="en")
    figures = (await client.simulate_get("/metrics")).text
    assert 'basert_audio_windows_total{model="whisper"} 2.0' in figures
    assert 'basert_audio_fallbacks_total{model="whisper"} 2.0' in figures
    assert 'basert_requests_total{key="",model="whisper",outcome="ok"} 1.0' in figures
    told = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in figures.splitlines()
        if line[0] != "#"
    }
    sound = sum(len(speech(NAMES[n])) for n in range(2)) / 16_000 + 24
    assert told['basert_audio_seconds_total{model="whisper"}'] == pytest.approx(sound)
    assert told['basert_audio_processing_seconds_total{model="whisper"}'] > 0


async def test_a_host_without_what_reads_sound(
    client: ASGIConductor, whisper: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there when the server started."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['av'] = None\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    error = await refused(client, status=501, file=written(speech(), "flac", "flac"))
    assert error["code"] == "not_installed"
    assert "install basert with its extra `audio`" in error["message"]
