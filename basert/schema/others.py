"""The small endpoints: models, tokenize, detokenize, health, and the form of every error."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from basert.errors import InvalidRequest
from basert.schema.chat import Message, check_messages
from basert.schema.chat_extras import check_continued, turn
from basert.schema.tools import Tool


class ErrorDetail(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct):
    error: ErrorDetail


class Replica(msgspec.Struct):
    """One of a model's engines."""

    status: str
    percent: int
    restarts: int
    reason: str | UnsetType = UNSET


class Loading(msgspec.Struct):
    """The build of a model that is to take over a name, once it is ready."""

    id: str
    system_fingerprint: str
    status: str
    stage: str
    percent: int


class ModelCard(msgspec.Struct):
    id: str
    created: int
    max_model_len: int  # tokens of prompt and answer together
    system_fingerprint: str  # the build
    task: Literal["generate", "embed", "rerank", "classify", "transcribe", "translate"]  # what it is for
    status: str  # "loading" | "ready" | "restarting" | "failed" | "asleep" | "waking" | "unloading"
    stage: str  # of loading: "loading" | "checking"; else nothing
    percent: int  # of loading
    replicas: list[Replica]
    reason: str | UnsetType = UNSET  # why it is not ready
    next: Loading | UnsetType = UNSET
    dimensions: int | UnsetType = UNSET  # of its embeddings
    labels: list[str] | UnsetType = UNSET  # that it tells apart
    prompts: list[str] | UnsetType = UNSET  # names of texts that its inputs may begin with
    languages: list[str] | UnsetType = UNSET  # that it hears, by Whisper's codes
    translates: bool | UnsetType = UNSET  # what it hears, to English
    parent: str | UnsetType = UNSET  # of an adapter: the model that it changes
    object: Literal["model"] = "model"
    owned_by: str = "basert"


class ModelDeleted(msgspec.Struct):
    id: str
    object: Literal["model"] = "model"
    deleted: bool = True


class ModelRequest(msgspec.Struct, kw_only=True):
    """To load or unload a model: its name in the store of the server, or a name that it has there."""

    model: Annotated[str, Meta(min_length=1)]


class SwapRequest(msgspec.Struct, kw_only=True):
    """Let `alias`, a name in use, mean the bundle that is called `model` in the store of the server."""

    alias: Annotated[str, Meta(min_length=1)]
    model: Annotated[str, Meta(min_length=1)]


class ModelList(msgspec.Struct):
    data: list[ModelCard]
    object: Literal["list"] = "list"


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """A text (`prompt`) or a conversation (`messages`), as vLLM has it."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Meta(min_length=1)] | None = None
    tools: list[Tool] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    documents: list[dict[str, Any]] | None = None
    return_token_strs: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def check(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            raise InvalidRequest("Send either 'prompt' or 'messages'.", param="prompt")
        check_messages(self.messages or [], self.tools)
        check_continued(self.messages or [], self.continue_final_message, self.add_generation_prompt)

    def template_arguments(self) -> dict[str, Any]:
        """What the chat template is given beside messages and tools."""
        return {
            **(self.chat_template_kwargs or {}),
            **turn(self.continue_final_message, self.add_generation_prompt),
            "documents": self.documents,
        }


class TokenizeAnswer(msgspec.Struct):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    tokens: list[int]
    model: str | None = None


class DetokenizeAnswer(msgspec.Struct):
    prompt: str


class Alive(msgspec.Struct):
    status: Literal["ok"] = "ok"


class ReplicaReadiness(msgspec.Struct):
    """One of a model's engines."""

    state: str
    reason: str
    restarts: int


class ModelReadiness(msgspec.Struct):
    name: str
    state: str
    reason: str
    loaded: float  # share, 0 to 1
    restarts: int
    needed: bool  # else it sleeps, or is loaded because somebody asked, and the server is ready meanwhile
    replicas: list[ReplicaReadiness]


class Readiness(msgspec.Struct):
    """503 unless `status` is "ready"."""

    status: Literal["ready", "not ready", "draining"]
    reason: str
    models: list[ModelReadiness]
