"""POST /v1/audio/transcriptions and /v1/audio/translations: the fields of their forms."""

from __future__ import annotations

import secrets
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from basert.errors import InvalidRequest
from basert.schema.drawing import Fraction
from basert.schema.extras import Unsupported
from basert.schema.parsing import given

Sound = Annotated[
    str, Meta(description="A sound or video file.", extra_json_schema={"format": "binary"})
]  # its name; its content is basert.http.uploads' business
Milliseconds = Annotated[int, Meta(ge=0, le=60_000)]
Granularity = Literal["word", "segment"]


class ServerVad(msgspec.Struct, kw_only=True, tag_field="type", tag="server_vad"):
    """How speech is told from silence."""

    threshold: Fraction | None = None
    prefix_padding_ms: Milliseconds | None = None
    silence_duration_ms: Milliseconds | None = None


class TranslationRequest(msgspec.Struct, kw_only=True):
    """Null and the empty string mean absent."""

    file: Sound
    model: str | None = None
    prompt: str | None = None
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] | None = None
    temperature: Fraction | None = None
    # What transcriptions have by OpenAI's word, and others let translations have
    language: Annotated[str, Meta(description="Spoken: a code or a name in English.")] | None = None
    stream: bool | None = None
    chunking_strategy: Literal["auto"] | ServerVad | None = None
    # What OpenAI lacks and other servers have
    hotwords: str | None = None
    vad_filter: bool | None = None
    condition_on_previous_text: bool | None = None
    no_speech_threshold: Fraction | None = None
    compression_ratio_threshold: Annotated[float, Meta(ge=0)] | None = None
    log_prob_threshold: Annotated[float, Meta(le=0)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    max_completion_tokens: (
        Annotated[int, Meta(ge=1, le=2**31 - 1, description="For each window of at most 30 s.")] | None
    ) = None
    priority: (
        Annotated[int, Meta(ge=-(2**31), le=2**31 - 1, description="Above 0: after all others.")] | None
    ) = None

    @property
    def form(self) -> str:
        return self.response_format or "json"

    @property
    def words(self) -> bool:
        """Whether words with their times are wanted."""
        return False

    @property
    def granularities(self) -> list[Granularity]:
        return []

    @property
    def spoken(self) -> list[str]:
        """Languages of which one is spoken; []: any may be."""
        return []

    @property
    def logprobs(self) -> bool:
        return False

    @property
    def named_words(self) -> str:
        """Words that are to be recognised, as a prompt."""
        return self.hotwords or ""

    @property
    def sequential(self) -> bool:
        """Whether windows follow one another, each with the text before it; else they run side by side."""
        return bool(self.condition_on_previous_text)

    @property
    def detects_speech(self) -> bool:
        """Whether the recording is cut at silence, which is left out; else by what the model hears."""
        return self.vad_filter is not False

    @property
    def drawn_seed(self) -> int:
        """Of 64 bits. Without one the same recording is heard alike each time, though a window is drawn again
        when the likeliest text is no good; unless the request asks for chance by its temperature."""
        if self.seed is None:
            return secrets.randbits(64) if self.temperature else 0
        return self.seed % 2**64

    @property
    def lane(self) -> int:
        """As basert.messages has priorities."""
        return int((self.priority or 0) > 0)

    def check(self) -> None:
        """Raises InvalidRequest for fields that contradict each other."""
        if self.vad_filter is False and self.chunking_strategy is not None:
            raise InvalidRequest(
                "Leave 'chunking_strategy' out, or 'vad_filter', which says not to look for speech.",
                param="chunking_strategy",
            )


class TranscriptionRequest(TranslationRequest, kw_only=True):
    timestamp_granularities: list[Granularity] | None = None
    include: list[Literal["logprobs"]] | None = None
    keywords: Annotated[list[str], Meta(max_length=1024, description="The same as hotwords.")] | None = None
    languages: Annotated[list[str], Meta(max_length=128, description="Spoken: one of these.")] | None = None
    known_speaker_names: Unsupported = None
    known_speaker_references: Unsupported = None

    @property
    def words(self) -> bool:
        return "word" in self.granularities

    @property
    def granularities(self) -> list[Granularity]:
        return self.timestamp_granularities or []

    @property
    def spoken(self) -> list[str]:
        return self.languages or []

    @property
    def logprobs(self) -> bool:
        return "logprobs" in (self.include or [])

    @property
    def named_words(self) -> str:
        return ", ".join([*([self.hotwords] if self.hotwords else []), *(self.keywords or [])])

    def check(self) -> None:
        super().check()
        if self.words and self.form != "verbose_json":
            raise InvalidRequest(
                "Words with their times come with 'response_format': 'verbose_json' only; ask for that.",
                param="timestamp_granularities",
            )
        if self.logprobs and self.form != "json":
            raise InvalidRequest(
                "Log-probabilities come with 'response_format': 'json' only; ask for that.", param="include"
            )
        if self.language and self.languages:
            raise InvalidRequest("Send either 'language' or 'languages', not both.", param="languages")
        for field in ("known_speaker_names", "known_speaker_references"):
            if given(getattr(self, field)):
                raise InvalidRequest(f"Speakers are not told apart; leave '{field}' out.", param=field)


LISTS = {"timestamp_granularities", "include", "keywords", "languages"}
LISTS |= {"known_speaker_names", "known_speaker_references"}
OBJECTS = {"chunking_strategy"}
