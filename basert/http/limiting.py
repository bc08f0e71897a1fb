"""How much a key, or an address on an open server, may use in a minute: requests and tokens.

A request is counted when it comes. Its tokens are reserved when it goes to the engine, by what they are
expected to be, and corrected when it ends, by what they were. Whoever is limited is told in OpenAI's headers,
with every answer, what is left.
"""

from __future__ import annotations

import ipaddress
import math

from falcon.asgi import Request

from basert.config import AppConfig
from basert.errors import RequestsExceeded, TokensExceeded, TooManyTokens
from basert.http.quotas import Level, Quotas
from basert.keys import Key, Limits

IPV6_PREFIX = 64  # what a single customer has of IPv6: all of its addresses are one


class Limiter:
    """Which limits a request is under."""

    def __init__(self, config: AppConfig, quotas: Quotas) -> None:
        self._header = config.client_address_header
        self._anonymous = Limits(config.rate_limit, config.rate_limit_tokens)
        self._quotas = quotas

    def allowance(self, key: Key, req: Request) -> Allowance | None:
        """None: there is no limit."""
        limits = key.limits if key.digest else self._anonymous
        if limits == Limits():
            return None
        return Allowance(self._quotas, key.digest or self._address(req), limits, bool(key.digest))

    def _address(self, req: Request) -> str:
        """Whoever is at the other end, or what the proxy there says it has before it."""
        named = (req.get_header(self._header) or "").rpartition(",")[2].strip() if self._header else ""
        return network(named) or network(req.remote_addr) or req.remote_addr


class Allowance:
    """What one request may use of its key's, or its address's, limits."""

    def __init__(self, quotas: Quotas, owner: str, limits: Limits, by_key: bool) -> None:
        self._quotas = quotas
        self._owner = owner
        self._limits = limits
        self._whose = "this key" if by_key else "your address"
        self._counted = False

    def count(self) -> None:
        """Take the request itself. Raises RequestsExceeded."""
        if self._limits.requests is None:
            return
        level = self._take("requests", 1)
        if not level.taken:
            raise RequestsExceeded(
                f"Rate limit reached for {self._whose}: {self._limits.requests} requests per minute. "
                f"Please try again in {duration(level.wait)}.",
                retry_after=level.wait,
            )
        self._counted = True

    def reserve(self, prompt: int, expected: int) -> int:
        """Take the tokens of a prompt, and those that are expected for answers. Returns how many were taken.

        Raises TokensExceeded; TooManyTokens where waiting would not help. A request that expects more than
        a minute's tokens waits for a full bucket: what it uses beyond is missing afterwards.
        """
        limit = self._limits.tokens
        if limit is None:
            return 0
        amount = max(1, min(prompt + expected, limit))
        if prompt > limit:
            self._uncount()
            raise TooManyTokens(
                f"Request too large for {self._whose}: its input has {prompt} tokens, and {limit} tokens per "
                "minute is the limit. Please send less."
            )
        if not (level := self._take("tokens", amount)).taken:
            self._uncount()
            raise TokensExceeded(
                f"Rate limit reached for {self._whose}: {limit} tokens per minute, "
                f"{max(0, int(level.left))} left, {amount} requested. "
                f"Please try again in {duration(level.wait)}.",
                retry_after=level.wait,
            )
        return amount

    def settle(self, reserved: int, used: int) -> None:
        """A request has ended: take what it used beyond what was reserved for it, or give back the rest."""
        if self._limits.tokens is not None:
            self._take("tokens", used - reserved, anyway=True)

    def _uncount(self) -> None:
        """What is refused was no request."""
        if self._counted:
            self._take("requests", -1, anyway=True)
            self._counted = False

    def headers(self) -> dict[str, str]:
        """As OpenAI has them."""
        headers = {}
        for kind, limit in (("requests", self._limits.requests), ("tokens", self._limits.tokens)):
            if limit is not None:
                level = self._take(kind, 0, anyway=True)
                headers[f"x-ratelimit-limit-{kind}"] = str(limit)
                headers[f"x-ratelimit-remaining-{kind}"] = str(max(0, int(level.left)))
                headers[f"x-ratelimit-reset-{kind}"] = duration(level.reset)
        return headers

    def _take(self, kind: str, amount: int, *, anyway: bool = False) -> Level:
        limit = self._limits.requests if kind == "requests" else self._limits.tokens
        assert limit is not None
        return self._quotas.take(f"{kind} {self._owner}", amount, limit, anyway=anyway)


def network(address: str | None) -> str:
    """An address as far as it tells one client from another; nothing if it is none."""
    try:
        parsed = ipaddress.ip_address((address or "").strip("[]"))
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed.packed, IPV6_PREFIX), strict=False))
    return str(parsed)


def duration(seconds: float) -> str:
    """As OpenAI writes it: 120ms, 7.5s, 6m0s. Rounded up, so that whoever waits so long has waited enough."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes}m" * bool(minutes) + f"{milliseconds / 1000:g}s"
