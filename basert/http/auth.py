"""Who sends a request: its API key is looked up by its hash, and what that key may do goes with the request.

Without any key the server is open. With keys, everything needs one but what load balancers and monitors ask
for (health and, unless --protect-metrics, metrics) and the API's description. Knows no model and no body.

What others find in a request: `req.context.key` (a basert.keys.Key), and `req.context.owner`, whose something
is that is kept: the key's hash, the same after every reload, "" on an open server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from falcon.asgi import Request, Response

from basert import keys
from basert.config import AppConfig
from basert.errors import ConfigError, Forbidden, Unauthorized
from basert.http.caller import caller
from basert.http.inside import OWNER
from basert.http.limiting import Limiter
from basert.keys import ANYBODY, Key

METRICS_PATHS = frozenset({"/metrics", "/v1/metrics"})
OPEN_PATHS = frozenset({"/health", "/livez", "/readyz", "/openapi.json"}) | METRICS_PATHS

_log = logging.getLogger(__name__)


def require_admin(req: Request) -> None:
    """Raises Forbidden for a key that is no administrator's. On an open server anybody may."""
    key: Key = req.context.key
    if not key.admin:
        raise Forbidden(
            f"The key {key.name!r} is no administrator's; use one whose line in the key file says admin.",
            code="admin_required",
        )


class Keys:
    """Falcon middleware: whose a request is, and whether its key has used up its limits."""

    def __init__(self, config: AppConfig, read: Callable[[], Sequence[Key]], limiter: Limiter) -> None:
        """read: returns the keys in force now, or raises ConfigError, as this does then."""
        self._open = OPEN_PATHS - METRICS_PATHS if config.protect_metrics else OPEN_PATHS
        self._read = read
        self._limiter = limiter
        self._keys = _by_digest(read())

    def reload(self) -> None:
        """Read the keys again; if that fails, the old keys stay and the log says why."""
        try:
            self._keys = _by_digest(self._read())
        except ConfigError as error:
            _log.error("the API keys stay as they were: %s", error.message)

    def of(self, owner: str) -> Key:
        """The key of whoever owns something. Raises Unauthorized when it is no longer in force."""
        if not owner or not self._keys:
            return ANYBODY
        if owner not in self._keys:
            raise Unauthorized("The API key that this was asked for with is no longer in force.")
        return self._keys[owner]

    async def process_request(self, req: Request, _resp: Response) -> None:
        who, needed = caller.get(), req.path not in self._open and req.method != "OPTIONS"
        req.context.key = who.key = ANYBODY  # also of what is refused
        req.context.owner = ""
        if OWNER in req.scope:  # from within: limits of a minute are not for it
            req.context.key = who.key = self.of(req.scope[OWNER])
            req.context.owner = req.scope[OWNER]
            return
        if needed and self._keys:
            req.context.key = who.key = self._known(_sent(req))
            req.context.owner = who.key.digest
        who.allowance = self._limiter.allowance(who.key, req) if needed else None
        if who.allowance is not None and req.method == "POST":
            who.allowance.count()

    async def process_response(self, _req: Request, resp: Response, _resource: object, _ok: bool) -> None:
        if (allowance := caller.get().allowance) is not None:
            resp.set_headers(allowance.headers())

    def _known(self, sent: str) -> Key:
        if not sent:
            raise Unauthorized(
                "You didn't provide an API key. Send it as the header Authorization: Bearer KEY, "
                "or as x-api-key."
            )
        # Not compared byte by byte: how long it takes tells nothing, neither of keys nor of their hashes.
        key = self._keys.get(keys.digest(sent))
        if key is None:
            raise Unauthorized("Incorrect API key provided.")
        return key


def _sent(req: Request) -> str:
    """The key as OpenAI's clients send it, or as Anthropic's do."""
    scheme, _, key = (req.get_header("Authorization") or "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return (req.get_header("x-api-key") or "").strip()


def _by_digest(known: Sequence[Key]) -> dict[str, Key]:
    return {key.digest: key for key in known}
