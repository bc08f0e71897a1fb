"""A form with a recording to its transcript: what is asked of the model; the answer, plain or streamed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

from falcon.asgi import Request, Response

from basert.audio import languages
from basert.audio.formats import Task
from basert.audio.quality import Thresholds
from basert.audio.windows import Detection
from basert.errors import InvalidRequest
from basert.http import media
from basert.http.limits import check_prompt_size
from basert.http.models import Model
from basert.http.uploads import read_form
from basert.manifest import Speech
from basert.resources.choosing import speech_for
from basert.resources.hearing import Hearing
from basert.resources.listening import Wish
from basert.resources.recordings import Recording, Studio
from basert.resources.responding import send_events
from basert.resources.service import Service
from basert.resources.transcript_writer import TranscriptWriter
from basert.schema.forms import from_form
from basert.schema.parsing import convert
from basert.schema.transcriptions import LISTS, OBJECTS, ServerVad, TranslationRequest


async def transcribe(
    req: Request, resp: Response, kind: type[TranslationRequest], task: Task, service: Service, studio: Studio
) -> None:
    async with read_form(req, service.config, most=service.config.max_audio_bytes) as form:
        said = from_form(form.fields, form.filename, LISTS, OBJECTS)
        request: TranslationRequest = convert(said, kind, texts=True)
        request.check()
        model, speech = speech_for(task, request.model, service.models)
        wish = _wish(request, task, model, speech, service)
        recording = await _recording(studio, form.path, request, service, req.context.started)
    hearing = Hearing(recording, wish, model, speech, service, req.context.started)
    writer = TranscriptWriter(request, task, model.text, recording.duration)
    await respond(resp, hearing, writer, service, stream=bool(request.stream))


async def _recording(
    studio: Studio, file: Path, request: TranslationRequest, service: Service, started: float
) -> Recording:
    try:
        async with asyncio.timeout(service.seconds_left(started)):
            return await studio.read(file, _detection(request))
    except TimeoutError:
        raise service.took_too_long() from None


async def respond(
    resp: Response, hearing: Hearing, writer: TranscriptWriter, service: Service, *, stream: bool
) -> None:
    """Answer either way. A stream begins with the first window that is heard; see send_events."""
    passages = hearing.passages()
    if stream:
        await send_events(
            resp,
            passages,
            service.config,
            said=writer.events,
            ending=lambda: writer.ending(hearing.language),
            failure=writer.failure,
        )
        return
    async with aclosing(passages):
        async for batch in passages:
            for passage in batch:
                writer.add(passage)
    whole = writer.whole(hearing.language)
    if isinstance(whole, str):
        resp.content_type, resp.text = "text/plain; charset=utf-8", whole
    else:
        media.send_json(resp, whole)


def _wish(request: TranslationRequest, task: Task, model: Model, speech: Speech, service: Service) -> Wish:
    """Raises InvalidRequest for what this model cannot do."""
    in_turn = request.sequential or not request.detects_speech
    return Wish(
        task=task,
        language=_language(request.language, "language", speech) if request.language else None,
        languages=[_language(one, "languages", speech) for one in request.spoken],
        hotwords=_ids(request.named_words, "hotwords", model, speech, service),
        prompt=_ids(request.prompt or "", "prompt", model, speech, service),
        in_turn=in_turn,
        follows=request.condition_on_previous_text is not False,
        timestamps=in_turn or request.form not in ("json", "text"),
        words=_checked_words(request, speech),
        temperature=request.temperature or 0.0,
        limits=_limits(request),
        max_tokens=request.max_completion_tokens,
        seed=request.drawn_seed,
        priority=request.lane,
    )


def _language(said: str, param: str, speech: Speech) -> str:
    """Whisper's code. Raises InvalidRequest for an unknown language, or one that the model does not hear."""
    known = list(speech.languages) or ["en"]
    try:
        code = languages.code(said)
    except InvalidRequest:
        code = said.strip().lower()
    if code in known:
        return code
    hears = "English only" if known == ["en"] else "these: " + ", ".join(known)
    raise InvalidRequest(f"Invalid '{param}': {said!r}; this model hears {hears}.", param=param)


def _ids(text: str, param: str, model: Model, speech: Speech, service: Service) -> list[int]:
    """A prompt's tokens, without special ones: a prompt is text, and nothing but that."""
    if not text.strip():
        return []
    check_prompt_size(text, service.config, param, f"'{param}'")
    if speech.previous is None:
        raise InvalidRequest(f"This model takes no prompt; leave '{param}' out.", param=param)
    ids = model.text.encode(f" {text.strip()}", add_special=False)
    return [token for token in ids if token < speech.timestamp_begin and not model.text.is_special(token)]


def _checked_words(request: TranslationRequest, speech: Speech) -> bool:
    if request.words and not speech.alignment_heads:
        raise InvalidRequest(
            "This model tells no words' times: its checkpoint names no alignment heads; ask for segments.",
            param="timestamp_granularities",
        )
    return request.words


def _limits(request: TranslationRequest) -> Thresholds:
    """Whisper's thresholds, but for those that the request names."""
    named = {
        "compression_ratio": request.compression_ratio_threshold,
        "avg_logprob": request.log_prob_threshold,
        "no_speech_prob": request.no_speech_threshold,
    }
    return Thresholds(**{name: value for name, value in named.items() if value is not None})


def _detection(request: TranslationRequest) -> Detection | None:
    if not request.detects_speech:
        return None
    asked = request.chunking_strategy
    if not isinstance(asked, ServerVad):
        return Detection()
    named = {name: getattr(asked, name) for name in asked.__struct_fields__}
    return Detection(**{name: value for name, value in named.items() if value is not None})
