"""What a request takes of its limits, what it gives back, and what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basert.errors import (
    EngineFailed,
    Overloaded,
    RequestsExceeded,
    TokensExceeded,
    TooManyTokens,
    Unavailable,
)
from basert.http.caller import Caller
from basert.http.limiting import Allowance, duration, network
from basert.http.quotas import Quotas
from basert.keys import Limits


@pytest.fixture
def quotas() -> Iterator[Quotas]:
    made = Quotas(None, lambda: 1e6)
    yield made
    made.close()


def left(allowance: Allowance) -> tuple[int, int]:
    """Requests and tokens."""
    headers = allowance.headers()
    return tuple(int(headers[f"x-ratelimit-remaining-{kind}"]) for kind in ("requests", "tokens"))  # type: ignore[return-value]


def test_what_is_reserved_is_corrected_by_what_was_used(quotas: Quotas) -> None:
    who = Caller()
    who.allowance = Allowance(quotas, "k", Limits(10, 1000), by_key=True)
    who.allowance.count()
    with who.reserved(100, 500):
        assert left(who.allowance) == (9, 400)
        who.tokens += 50
    assert left(who.allowance) == (9, 850)
    assert _failing(who, asyncio.CancelledError(), tokens=7) == (9, 743)  # whose client has left


def test_what_the_engine_could_not_do_costs_nothing(quotas: Quotas) -> None:
    who = Caller()
    who.allowance = Allowance(quotas, "k", Limits(10, 1000), by_key=True)
    for error in (Overloaded(""), Unavailable(""), EngineFailed("")):
        assert _failing(who, error, tokens=0) == (10, 1000)
    assert _failing(who, EngineFailed(""), tokens=7) == (10, 893)


def _failing(who: Caller, error: BaseException, tokens: int) -> tuple[int, int]:
    """What is left after a request with a prompt of 100 tokens failed, having generated some."""
    assert who.allowance is not None
    with contextlib.suppress(type(error)), who.reserved(100, 500):
        who.tokens += tokens
        raise error
    return left(who.allowance)


def test_more_than_was_expected_is_missing_afterwards(quotas: Quotas) -> None:
    who = Caller()
    who.allowance = Allowance(quotas, "k", Limits(None, 1000), by_key=True)
    with who.reserved(10, 100_000):  # wants more than there ever is: a full bucket will do
        who.tokens += 3000
    with pytest.raises(TokensExceeded) as refused, who.reserved(1, 0):
        pass
    assert refused.value.retry_after == pytest.approx(2011 / 1000 * 60)


@pytest.mark.parametrize(("tokens", "error"), [(600, TokensExceeded), (1001, TooManyTokens)])
def test_what_is_refused_was_no_request(quotas: Quotas, tokens: int, error: type[TokensExceeded]) -> None:
    first, second = (Allowance(quotas, "k", Limits(10, 1000), by_key=True) for _ in range(2))
    first.count()
    first.reserve(500, 0)
    second.count()
    assert left(second) == (8, 500)
    with pytest.raises(error) as refused:
        second.reserve(tokens, 0)
    assert left(second) == (9, 500)
    assert refused.value.should_retry is (False if error is TooManyTokens else None)


def test_requests_and_tokens_of_one_name_are_no_other_s(quotas: Quotas) -> None:
    mine, other = (Allowance(quotas, name, Limits(1, 100), by_key=True) for name in ("a", "b"))
    mine.count()
    with pytest.raises(RequestsExceeded, match=r"this key: 1 requests per minute. Please try again in 1m0s"):
        mine.count()
    assert left(mine) == (0, 100)
    assert left(other) == (1, 100)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:9::9]", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", ""),
        ("192.0.2.1:80", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_addresses_that_are_one_client(address: str | None, told: str) -> None:
    assert network(address) == told


@given(st.floats(0, 1e6))
def test_durations_are_never_too_short(seconds: float) -> None:
    parts = re.fullmatch(r"(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:(\d+)ms)?", duration(seconds))
    assert parts is not None
    minutes, whole, milli = (float(part or 0) for part in parts.groups())
    assert seconds <= minutes * 60 + whole + milli / 1000 + 1e-9 <= seconds + 0.0011


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0s"), (0.0001, "1ms"), (0.12, "120ms"), (7.5, "7.5s"), (360, "6m0s"), (61, "1m1s")],
)
def test_durations_look_like_openai_s(seconds: float, told: str) -> None:
    assert duration(seconds) == told
