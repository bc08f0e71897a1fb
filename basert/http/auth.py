"""API keys, compared in constant time over hashes. Knows no model and no request body.

Without any key the server is open. With keys, everything needs one but what load balancers and monitors ask
for (health and, unless --protect-metrics, metrics) and the API's description.
"""

from __future__ import annotations

import hashlib
import hmac
import logging

from falcon.asgi import Request, Response

from basert.config import AppConfig
from basert.errors import ConfigError, Unauthorized

METRICS_PATHS = frozenset({"/metrics", "/v1/metrics"})
OPEN_PATHS = frozenset({"/health", "/livez", "/readyz", "/openapi.json"}) | METRICS_PATHS

_log = logging.getLogger(__name__)


class Keys:
    """Falcon middleware. The keys themselves are not kept, only their hashes."""

    def __init__(self, config: AppConfig) -> None:
        """Raises ConfigError when the key file cannot be read."""
        self._config = config
        self._open = OPEN_PATHS - METRICS_PATHS if config.protect_metrics else OPEN_PATHS
        self._hashes = _hashed(config.read_keys())

    def reload(self) -> None:
        """Read the key file again; if that fails, the old keys stay and the log says why."""
        try:
            self._hashes = _hashed(self._config.read_keys())
        except ConfigError as error:
            _log.error("the API keys stay as they were: %s", error.message)

    async def process_request(self, req: Request, _resp: Response) -> None:
        req.context.owner = ""  # whose a kept response is; everybody's, on an open server
        if self._hashes and req.path not in self._open and req.method != "OPTIONS":
            req.context.owner = self._check(_sent(req)).hex()

    def _check(self, key: str) -> bytes:
        """The hash of a key that is known."""
        if not key:
            raise Unauthorized(
                "You didn't provide an API key. Send it as the header Authorization: Bearer KEY, "
                "or as x-api-key."
            )
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        if not self._known(digest):
            raise Unauthorized("Incorrect API key provided.")
        return digest

    def _known(self, digest: bytes) -> bool:
        matches = [hmac.compare_digest(digest, one) for one in self._hashes]  # all of them, whichever fits
        return any(matches)


def require_admin(_req: Request) -> None:
    """Before what changes the server itself: whoever got past the keys may."""


def _sent(req: Request) -> str:
    """The key as OpenAI's clients send it, or as Anthropic's do."""
    scheme, _, key = (req.get_header("Authorization") or "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return (req.get_header("x-api-key") or "").strip()


def _hashed(keys: tuple[str, ...]) -> list[bytes]:
    return [hashlib.sha256(key.encode()).digest() for key in keys]
