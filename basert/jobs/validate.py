"""Is a file a batch's input? Every line is looked at before the first is run, and what is wrong is listed.

Only what makes a line a request is checked here: what is in its body is for its endpoint to say. Codes are
those that OpenAI's and Azure's batches have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from basert.errors import BasertError
from basert.jobs.lines import Lines
from basert.schema.batches import BatchError, InputLine
from basert.schema.parsing import parse, translated

MOST_ERRORS = 100  # that are listed


class _Body(msgspec.Struct):
    """As much of a request as concerns all endpoints."""

    model: str
    stream: bool | None = None


@dataclass(frozen=True)
class Rules:
    endpoint: str
    most_lines: int
    most_bytes: int  # of a line
    most_depth: int  # of its JSON
    check_model: Callable[[str], None]  # raises BasertError for a model that cannot be asked


def validated(lines: Lines, rules: Rules) -> tuple[str, list[BatchError]]:
    """The model that all lines are for, and what is wrong with them. Reads the file: slow."""
    if not len(lines):
        return "", [_about_all("empty_file", "The file holds no request; write one a line.")]
    if len(lines) > rules.most_lines:
        told = f"The file holds {len(lines)} requests; the most taken here is {rules.most_lines}: split it."
        return "", [_about_all("too_many_tasks", told)]
    checked = _Checked(rules)
    errors = []
    for place in range(len(lines)):
        for error in checked.errors(lines, place):
            error.line = lines.number(place)
            errors.append(error)
        if len(errors) >= MOST_ERRORS:
            break
    return checked.model or "", errors[:MOST_ERRORS]


class _Checked:
    """What the lines so far have said."""

    def __init__(self, rules: Rules) -> None:
        self.model: str | None = None
        self._rules = rules
        self._ids: set[str] = set()

    def errors(self, lines: Lines, place: int) -> Iterator[BatchError]:
        if lines.length(place) > self._rules.most_bytes:
            yield _error("line_too_long", f"The line has more than {self._rules.most_bytes} bytes.")
            return
        try:
            line = lines.read(place)
        except msgspec.ValidationError as error:
            told = translated(str(error))
            yield _error("invalid_request", told.message, told.param)
            return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield _error("invalid_json_line", "This line is not parseable as valid JSON.")
            return
        yield from self._wrong_with_frame(line)
        yield from self._wrong_with_body(bytes(line.body))

    def _wrong_with_frame(self, line: InputLine) -> Iterator[BatchError]:
        endpoint = self._rules.endpoint
        if line.custom_id in self._ids:
            told = f"The custom_id {line.custom_id!r} is that of an earlier line; give each its own."
            yield _error("duplicate_custom_id", told, "custom_id")
        self._ids.add(line.custom_id)
        if line.method != "POST":
            yield _error("invalid_method", f"The method is {line.method!r}; only 'POST' is taken.", "method")
        if line.url != endpoint:
            told = (
                f"The URL is {line.url!r}, and the batch's endpoint {endpoint!r}; they have to be the same."
            )
            yield _error("url_mismatch", told, "url")

    def _wrong_with_body(self, body: bytes) -> Iterator[BatchError]:
        try:
            asked = parse(body, _Body, max_depth=self._rules.most_depth)
            if asked.model != self.model:
                self._rules.check_model(asked.model)
        except BasertError as error:
            param = f"body.{error.param}" if error.param else "body"
            yield _error(error.code or "invalid_request", error.message, param)
            return
        if asked.model != self.model and self.model is not None:
            told = f"The model is {asked.model!r}, in earlier lines {self.model!r}; make a batch for each."
            yield _error("model_mismatch", told, "body.model")
        self.model = self.model or asked.model
        if asked.stream:
            yield _error("invalid_request", "Batches are not streamed; leave it out.", "body.stream")


def _error(code: str, message: str, param: str | None = None) -> BatchError:
    return BatchError(code, None, message, param)


def _about_all(code: str, message: str) -> BatchError:
    return BatchError(code, None, message, None)
