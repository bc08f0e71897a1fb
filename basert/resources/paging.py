"""Lists a page at a time: the parameters that say which."""

from __future__ import annotations

from typing import TYPE_CHECKING

from falcon.asgi import Request

from basert.errors import InvalidRequest

if TYPE_CHECKING:
    from basert.jobs.records import Query


def query_of(req: Request, default: int, most: int) -> Query:
    """Raises InvalidRequest."""
    from basert.jobs.records import Query

    limit = req.get_param_as_int("limit", default=default, min_value=1, max_value=most)
    order, purpose = req.get_param("order") or "desc", req.get_param("purpose")
    if order not in ("asc", "desc"):
        raise InvalidRequest('Invalid \'order\': expected "asc" or "desc".', param="order")
    if purpose is not None and not purpose.isprintable():
        raise InvalidRequest("Invalid 'purpose': there is no such purpose.", param="purpose")
    return Query(req.context.owner, limit, req.get_param("after") or None, order == "asc", purpose or None)
