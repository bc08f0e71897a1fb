"""GET /openapi.json, made of the same structs that check requests and write answers, and the route table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from falcon.asgi import Request, Response

from basert import __version__
from basert.http.auth import OPEN_PATHS
from basert.schema.others import ErrorBody

Responder = TypeVar("Responder", bound=Callable[..., Any])


@dataclass(frozen=True)
class Operation:
    """What a method of a route takes and answers."""

    summary: str
    request: type[msgspec.Struct] | None
    answer: Any  # a type, or a tuple of those that it may have; None: plain text; bytes: as they are
    chunk: Any = None  # the type of what a stream's events hold, if it can stream
    error: type[msgspec.Struct] = ErrorBody
    form: str = "application/json"  # what the request is sent as


def operation(
    summary: str,
    request: type[msgspec.Struct] | None,
    answer: Any,
    chunk: Any = None,
    error: type[msgspec.Struct] = ErrorBody,
    form: str = "application/json",
) -> Callable[[Responder], Responder]:
    """Write an Operation on a resource's responder."""

    def described(responder: Responder) -> Responder:
        responder.operation = Operation(summary, request, answer, chunk, error, form)  # type: ignore[attr-defined]
        return responder

    return described


def operations(resource: Any) -> dict[str, Operation]:
    """A resource's operations by HTTP method."""
    responders = {method: getattr(resource, f"on_{method}", None) for method in ("get", "post", "delete")}
    return {method: one.operation for method, one in responders.items() if one is not None}


class Document:
    """The document, made once."""

    def __init__(self, routes: Mapping[str, Any]) -> None:
        """routes: path template -> resource."""
        self._raw = msgspec.json.encode(describe(routes))

    @operation("This document.", None, None)
    async def on_get(self, _req: Request, resp: Response) -> None:
        resp.content_type = "application/json"
        resp.data = self._raw


def describe(routes: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAPI 3.1 of a route table."""
    listed = [one for resource in routes.values() for one in operations(resource).values()]
    kinds = [kind for one in listed for kind in (one.request, *_answers(one), one.chunk, one.error)]
    types: list[Any] = [kind for kind in dict.fromkeys(kinds) if kind not in (None, bytes)]
    references, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schemas = dict(zip(types, references, strict=True))
    return {
        "openapi": "3.1.0",
        "info": {"title": "basert", "version": __version__},
        "paths": {
            re.sub(r":\w+}", "}", path): {
                method: _operation(one, path, schemas) for method, one in operations(resource).items()
            }
            for path, resource in routes.items()
        },
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(one: Operation, path: str, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": one.summary,
        "responses": {
            "200": {"description": "The answer.", "content": _answer(one, schemas)},
            "default": {"description": "An error.", "content": _json(schemas[one.error])},
        },
    }
    if one.request is not None:
        described["requestBody"] = {
            "required": True,
            "content": {one.form: {"schema": schemas[one.request]}},
        }
    if names := re.findall(r"{(\w+)", path):
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if path not in OPEN_PATHS:
        described["security"] = [{"key": []}]
    return described


def _answer(one: Operation, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    answers = _answers(one)
    told = [schemas[kind] for kind in answers if kind in schemas]
    content = _json(told[0] if len(told) == 1 else {"anyOf": told}) if told else {}
    content |= {"text/plain": {}} if None in answers else {}
    content |= {"application/octet-stream": {}} if bytes in answers else {}
    return content | ({} if one.chunk is None else {"text/event-stream": {"schema": schemas[one.chunk]}})


def _answers(one: Operation) -> tuple[Any, ...]:
    return one.answer if isinstance(one.answer, tuple) else (one.answer,)


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
