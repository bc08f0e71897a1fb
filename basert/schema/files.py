"""/v1/files: the form of an upload, and what is told of files."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from basert.errors import InvalidRequest

BATCH: Literal["batch"] = "batch"
BATCH_OUTPUT: Literal["batch_output"] = "batch_output"
MOST_FILES = 10_000  # of a list
LONGEST_NAME = 512  # characters

UploadPurpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
Purpose = Literal["assistants", "batch", "batch_output", "fine-tune", "vision", "user_data", "evals"]
Content = Annotated[str, Meta(description="Any file.", extra_json_schema={"format": "binary"})]


class ExpiresAfter(msgspec.Struct, kw_only=True):
    """When a file is to be deleted, counted from its creation."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Meta(ge=3600, le=30 * 86400)]


class UploadRequest(msgspec.Struct, kw_only=True):
    file: Content
    purpose: UploadPurpose
    expires_after: ExpiresAfter | None = None

    def check(self) -> None:
        """Raises InvalidRequest for a name that is none."""
        if len(self.file) > LONGEST_NAME or not self.file.isprintable():
            raise InvalidRequest(
                f"The file's name is longer than {LONGEST_NAME} characters, or some cannot be printed; "
                "give it another.",
                param="file",
            )


class FileObject(msgspec.Struct, kw_only=True):
    id: str
    bytes: int
    created_at: int  # Unix seconds
    expires_at: int | UnsetType = UNSET
    filename: str
    purpose: Purpose
    sha256: str
    status: Literal["processed"] = "processed"
    object: Literal["file"] = "file"


class DeletedFile(msgspec.Struct):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class FileList(msgspec.Struct):
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"
