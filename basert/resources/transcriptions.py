"""POST /v1/audio/transcriptions and /v1/audio/translations. What they need is loaded when they are used."""

from __future__ import annotations

from falcon.asgi import Request, Response

from basert.audio.formats import Plain, Task, TextDelta, TextDone, Verbose
from basert.http.openapi import operation
from basert.http.uploads import KIND
from basert.resources.recordings import Studio
from basert.resources.service import Service
from basert.schema.transcriptions import TranscriptionRequest, TranslationRequest

ANSWERS = (Plain, Verbose, None)
EVENTS = TextDelta | TextDone


class Transcriptions:
    def __init__(self, service: Service, studio: Studio) -> None:
        self._service = service
        self._studio = studio

    @operation("What is said in a recording.", TranscriptionRequest, ANSWERS, EVENTS, form=KIND)
    async def on_post(self, req: Request, resp: Response) -> None:
        await self._transcribe(req, resp, TranscriptionRequest, "transcribe")

    async def _transcribe(
        self, req: Request, resp: Response, kind: type[TranslationRequest], task: Task
    ) -> None:
        from basert.resources.transcribing import transcribe

        await transcribe(req, resp, kind, task, self._service, self._studio)


class Translations(Transcriptions):
    @operation("What is said in a recording, in English.", TranslationRequest, ANSWERS, EVENTS, form=KIND)
    async def on_post(self, req: Request, resp: Response) -> None:
        await self._transcribe(req, resp, TranslationRequest, "translate")
