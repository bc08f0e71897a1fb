"""/v1/responses: OpenAI's newer form of a conversation, answered as chat would be, and kept for a while."""

from __future__ import annotations

from falcon.asgi import Request, Response

from basert.errors import InvalidRequest
from basert.http import media
from basert.http.models import Model
from basert.http.openapi import operation
from basert.resources.archive import Archive, Record
from basert.resources.chat import run_of
from basert.resources.choosing import model_for
from basert.resources.conversation import conversation
from basert.resources.fitting import run_that_fits
from basert.resources.generating import Run
from basert.resources.kept import new_name
from basert.resources.planning import beside
from basert.resources.responding import respond
from basert.resources.response_writer import ResponseWriter, begun
from basert.resources.service import Service
from basert.schema.parsing import renamed
from basert.schema.response_events import ResponseEvent
from basert.schema.response_items import RESPONSE, Item
from basert.schema.response_object import DeletedResponse, InputTokenCount, ItemList, ResponseObject
from basert.schema.responses import NAMES, ResponsesRequest

MOST_ITEMS = 100  # of a list


class Responses:
    def __init__(self, service: Service, archive: Archive) -> None:
        self._service = service
        self._archive = archive

    @operation("Answer a conversation of items.", ResponsesRequest, ResponseObject, chunk=ResponseEvent)
    async def on_post(self, req: Request, resp: Response) -> None:
        request = await self._service.read(req, ResponsesRequest)
        request.check()
        owner = req.context.owner
        items = self._archive.items_of(request, owner)
        model = model_for("generate", request.model, self._service.models)

        def keep(response: ResponseObject) -> None:
            if response.store:
                self._archive.put(Record(items, response), owner)

        with renamed(NAMES):
            run = await self._run(request, items, model, req)
            stored = request.store is not False and self._archive.is_open
            nothing_yet = begun(request, new_name(RESPONSE), model, run.plan.sampling, stored=stored)
            writer = ResponseWriter(nothing_yet, model, keep)
            await respond(resp, run, writer, self._service, stream=bool(request.stream))

    async def _run(self, request: ResponsesRequest, items: list[Item], model: Model, req: Request) -> Run:
        asked = request.to_chat(items)
        asked.check()
        if request.truncation == "auto":
            return await run_that_fits(asked, lambda one: run_of(one, model, self._service, req))
        return await run_of(asked, model, self._service, req)


class InputTokens:
    def __init__(self, service: Service, archive: Archive) -> None:
        self._service = service
        self._archive = archive

    @operation("The tokens of a conversation of items.", ResponsesRequest, InputTokenCount)
    async def on_post(self, req: Request, resp: Response) -> None:
        request = await self._service.read(req, ResponsesRequest)
        request.check()
        model, config = model_for("generate", request.model, self._service.models), self._service.config
        with renamed(NAMES):
            asked = request.to_chat(self._archive.items_of(request, req.context.owner))
            asked.check()
            said = await beside(lambda: conversation(asked, model, config), model, req)
        media.send_json(resp, InputTokenCount(len(said.prompt)))


class ResponseById:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    @operation("A response that was kept.", None, ResponseObject)
    async def on_get(self, req: Request, resp: Response, response: str) -> None:
        if req.get_param_as_bool("stream"):
            raise InvalidRequest(
                "Only what was left to the background can be streamed again; leave 'stream' out.",
                param="stream",
            )
        media.send_json(resp, self._archive.get(response, req.context.owner).response)

    @operation("Forget a response.", None, DeletedResponse)
    async def on_delete(self, req: Request, resp: Response, response: str) -> None:
        self._archive.remove(response, req.context.owner)
        media.send_json(resp, DeletedResponse(response))


class ResponseCancel:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    @operation("Refused: a response is never left to the background.", None, ResponseObject)
    async def on_post(self, req: Request, _resp: Response, response: str) -> None:
        self._archive.get(response, req.context.owner)
        raise InvalidRequest("Cannot cancel a synchronous response.", param="response_id")


class InputItems:
    """Newest first unless `order=asc`; `after` goes on behind an item, `limit` says how many."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    @operation("What a response was an answer to.", None, ItemList)
    async def on_get(self, req: Request, resp: Response, response: str) -> None:
        limit = req.get_param_as_int("limit", default=20, min_value=1, max_value=MOST_ITEMS)
        items = self._archive.get(response, req.context.owner).items
        order = req.get_param("order") or "desc"
        if order not in ("asc", "desc"):
            raise InvalidRequest('Invalid \'order\': expected "asc" or "desc".', param="order")
        rest = _behind(items if order == "asc" else items[::-1], req.get_param("after"))
        page = rest[:limit]
        first, last = (page[0].id, page[-1].id) if page else (None, None)
        media.send_json(resp, ItemList(page, first, last, has_more=len(rest) > len(page)))


def _behind(items: list[Item], name: str | None) -> list[Item]:
    """The items after the one with this id. Raises InvalidRequest if there is none."""
    if name is None:
        return items
    for place, item in enumerate(items):
        if item.id == name:
            return items[place + 1 :]
    raise InvalidRequest(f"Invalid 'after': no item has the id '{name}'.", param="after")
