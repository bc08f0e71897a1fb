"""Chat fields that shape the prompt as vLLM's do, and those of OpenAI's that change no answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from basert.errors import InvalidRequest
from basert.schema.extras import Unsupported
from basert.schema.generation import GenerationRequest


class Prediction(msgspec.Struct, tag_field="type", tag="content"):
    """What the answer may look like. Guesses are made of what was said: this speeds nothing up."""

    content: str | list[dict[str, Any]]


class ChatExtras(GenerationRequest, kw_only=True):
    """Null means absent."""

    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    documents: Annotated[list[dict[str, Any]], Meta(description="For the chat template.")] | None = None
    echo: Annotated[bool, Meta(description="Say the assistant's last message again.")] | None = None
    chat_template: Unsupported = None
    service_tier: Annotated[str, Meta(description='Always answered as "default".')] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    prediction: Prediction | None = None

    def check(self) -> None:
        super().check()
        self.refuse({"chat_template": "A chat template is code, and only the model's own is run"})


def check_continued(messages: Sequence[Any], continues: bool | None, begins: bool | None) -> None:
    """Whether the last message can go on, if it is to. begins: the prompt is to begin the answer's turn.
    Raises InvalidRequest."""
    if not continues:
        return
    if begins:
        raise InvalidRequest(
            "Send either 'continue_final_message' or 'add_generation_prompt', not both.",
            param="continue_final_message",
        )
    if not messages or messages[-1].content is None:
        raise InvalidRequest(
            "There is no last message with content to be continued.", param="continue_final_message"
        )


def turn(continues: bool | None, begins: bool | None) -> dict[str, bool]:
    """What a template is told: it does not begin the answer's turn where the last message goes on."""
    if continues:
        return {"add_generation_prompt": False}
    return {} if begins is None else {"add_generation_prompt": begins}
