"""Who runs which batch. A claim has to be renewed, and each has a token that no other claim of a batch has.

Whoever holds a batch may be killed, or only thought dead, and come back: nothing that it then wants to record
is taken, since every change of a batch names the token (`held`), and the next claim has changed that.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from basert.jobs.database import Database
from basert.jobs.records import ACTIVE
from basert.jobs.tables import batches

LEASE_SECONDS = 30.0


class ClaimLost(Exception):
    """Another process holds the batch now."""


@dataclass(frozen=True)
class Claim:
    batch: str
    token: int


class Claims:
    """The claims of one process, which `holder` names (see this_process)."""

    def __init__(self, database: Database, holder: str) -> None:
        self._database = database
        self._holder = holder

    def take(self, mine: Collection[str] = ()) -> Claim | None:
        """The oldest batch that nobody runs, or None. mine: those that this process does run."""
        columns = (batches.c.id, batches.c.token, batches.c.holder)
        leased = sa.case((batches.c.leased > self._database.now(), True), else_=False).label("leased")
        waiting = sa.select(*columns, leased).where(batches.c.status.in_(ACTIVE)).order_by(batches.c.number)
        with self._database.reading() as tx:
            rows = list(tx.execute(waiting))
        for row in rows:
            if row.id not in mine and self._is_free(row):
                claim = self._claim(row.id, row.token)
                if claim is not None:
                    return claim
        return None

    def renew(self, claims: Iterable[Claim]) -> None:
        """Those that were lost are left alone: `statuses` tells."""
        for claim in claims:
            with self._database.writing() as tx:
                tx.execute(_update(claim).values(leased=self._database.now() + LEASE_SECONDS))

    def release(self, claim: Claim) -> None:
        """Let others have it at once."""
        with self._database.writing() as tx:
            tx.execute(_update(claim).values(holder=None, leased=0))

    def statuses(self) -> dict[Claim, str]:
        """What this process holds, by the records."""
        query = sa.select(batches.c.id, batches.c.token, batches.c.status)
        with self._database.reading() as tx:
            held = list(tx.execute(query.where(batches.c.holder == self._holder)))
        return {Claim(row.id, row.token): row.status for row in held}

    def _is_free(self, row: Any) -> bool:
        """Whether nobody has it, or somebody who is known to be gone, or this process has forgotten it."""
        return not row.leased or row.holder is None or row.holder == self._holder or is_gone(row.holder)

    def _claim(self, batch: str, token: int) -> Claim | None:
        """None if another was quicker: the token has changed."""
        claim = Claim(batch, token + 1)
        lease = self._database.now() + LEASE_SECONDS
        change = _update(Claim(batch, token)).where(batches.c.status.in_(ACTIVE))
        with self._database.writing() as tx:
            done = tx.execute(change.values(holder=self._holder, token=claim.token, leased=lease))
        return claim if done.rowcount else None


def held(tx: sa.Connection, claim: Claim, **values: Any) -> Any:
    """Change a batch that is claimed, and keep others from claiming it until this transaction ends.

    Returns its record as a row. Raises ClaimLost.
    """
    change = _update(claim).values(values or {"token": claim.token})
    row = tx.execute(change.returning(batches)).one_or_none()
    if row is None:
        raise ClaimLost
    return row


def _update(claim: Claim) -> sa.Update:
    return sa.update(batches).where(batches.c.id == claim.batch, batches.c.token == claim.token)


def this_process() -> str:
    """A name that no other process has, and by which others on this host can tell whether it lives."""
    return f"{_host()}/{os.getpid()}/{_started(os.getpid())}"


def is_gone(holder: str) -> bool:
    """Whether a process is known to have ended; one of another host, or another container, never is."""
    host, _, process = holder.partition("/")
    pid, _, started = process.partition("/")
    return host == _host() and pid.isdigit() and _started(int(pid)) != started


def _host() -> str:
    """This start of this kernel, and where in it process numbers mean what they mean here."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"


def _started(pid: int) -> str:
    """When it was, in ticks since the kernel's start; "" if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
