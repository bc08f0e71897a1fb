"""/v1/batches: requests in a file, answered in another one by and by. They are run by basert.jobs."""

from __future__ import annotations

from falcon.asgi import Request, Response

from basert.http import media
from basert.http.openapi import operation
from basert.resources.choosing import Registry, Task, model_for
from basert.resources.files import FilesResource
from basert.resources.paging import query_of
from basert.schema.batches import MOST_BATCHES, BatchList, BatchObject, BatchRequest

# What a model has to be able to do for the lines of a batch.
TASKS: dict[str, Task] = {
    "/v1/chat/completions": "generate",
    "/v1/completions": "generate",
    "/v1/responses": "generate",
    "/v1/embeddings": "embed",
    "/v1/rerank": "rerank",
}


def check_model(name: str, endpoint: str, models: Registry) -> None:
    """Raises ModelNotFound, or InvalidRequest for one that cannot do it."""
    model_for(TASKS[endpoint], name, models)


class BatchCollection(FilesResource):
    @operation("Have the requests of a file answered.", BatchRequest, BatchObject)
    async def on_post(self, req: Request, resp: Response) -> None:
        office = self.office
        request = await self._service.read(req, BatchRequest)
        told = await office.database.run(office.batches.create, request, req.context.owner)
        media.send_json(resp, told)

    @operation("The batches of this key.", None, BatchList)
    async def on_get(self, req: Request, resp: Response) -> None:
        office = self.office
        query = query_of(req, 20, MOST_BATCHES)
        media.send_json(resp, await office.database.run(office.batches.page, query))


class BatchItem(FilesResource):
    @operation("How far a batch is.", None, BatchObject)
    async def on_get(self, req: Request, resp: Response, batch: str) -> None:
        office = self.office
        media.send_json(resp, await office.database.run(office.batches.get, batch, req.context.owner))


class BatchCancel(FilesResource):
    @operation("End a batch, and keep what is done.", None, BatchObject)
    async def on_post(self, req: Request, resp: Response, batch: str) -> None:
        office = self.office
        media.send_json(resp, await office.database.run(office.batches.cancel, batch, req.context.owner))
