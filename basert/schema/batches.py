"""/v1/batches: what is asked for, what is told of a batch, and the lines of its files."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from basert.schema.files import ExpiresAfter
from basert.schema.response_object import ResponseUsage

MOST_BATCHES = 100  # of a list

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/rerank"]
Status = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
Key = Annotated[str, Meta(max_length=64)]
Value = Annotated[str, Meta(max_length=512)]


class BatchRequest(msgspec.Struct, kw_only=True):
    input_file_id: str
    endpoint: Endpoint
    completion_window: Literal["24h"]
    metadata: Annotated[dict[Key, Value], Meta(max_length=16)] | None = None
    output_expires_after: ExpiresAfter | None = None


class BatchError(msgspec.Struct):
    code: str
    line: int | None  # of the input file, the first is 1
    message: str
    param: str | None


class BatchErrors(msgspec.Struct):
    data: list[BatchError]
    object: Literal["list"] = "list"


class RequestCounts(msgspec.Struct):
    total: int
    completed: int
    failed: int


class BatchObject(msgspec.Struct, kw_only=True):
    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | UnsetType = UNSET  # once that is known
    errors: BatchErrors | None
    input_file_id: str
    completion_window: Literal["24h"] = "24h"
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int  # Unix seconds, these and the following
    in_progress_at: int | None
    expires_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: ResponseUsage
    metadata: dict[str, str] | None


class BatchList(msgspec.Struct):
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class InputLine(msgspec.Struct, kw_only=True):
    """A request of a batch, as its file has it."""

    custom_id: Annotated[str, Meta(min_length=1)]
    method: str
    url: str
    body: Raw


class AnswerBody(msgspec.Struct):
    status_code: int
    request_id: str
    body: Any


class LineError(msgspec.Struct):
    code: str
    message: str


class OutputLine(msgspec.Struct):
    """A line of an output or error file: an answer, whatever its status, or why there is none."""

    id: str
    custom_id: str
    response: AnswerBody | None
    error: LineError | None
