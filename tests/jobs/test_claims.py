"""Claims of batches: one at a time, lost when they are not renewed, or their holder is seen to be gone."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from basert.jobs import claims
from basert.jobs.claims import Claim, ClaimLost, Claims, held, is_gone, this_process
from basert.jobs.office import Office
from tests.jobs.conftest import Opener
from tests.jobs.making import begin, line


def elsewhere(number: int) -> str:
    """A holder of another host."""
    return f"host {number}/1/1"


def test_the_oldest_first_and_each_once(office: Office) -> None:
    names = [begin(office, [line("a")]).id for _ in range(3)]
    one, other = Claims(office.database, elsewhere(1)), Claims(office.database, elsewhere(2))
    taken = [claim for claim in (one.take(), other.take(), one.take(names[:1])) if claim]
    assert [claim.batch for claim in taken] == names
    assert other.take(names[1:2]) is None
    assert one.statuses() == {taken[0]: "validating", taken[2]: "validating"}


def test_a_claim_ends_unless_it_is_renewed(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(office, [line("a")])
    one, other = Claims(office.database, elsewhere(1)), Claims(office.database, elsewhere(2))
    monkeypatch.setattr(claims, "LEASE_SECONDS", -1.0)
    claim = one.take()
    assert claim is not None
    monkeypatch.undo()
    one.renew([claim])
    assert other.take() is None
    monkeypatch.setattr(claims, "LEASE_SECONDS", -1.0)
    one.renew([claim])
    later = other.take()
    assert later == Claim(claim.batch, claim.token + 1)
    one.renew([claim])  # too late
    one.release(claim)
    assert one.statuses() == {}
    assert list(other.statuses()) == [later]
    with pytest.raises(ClaimLost), office.database.writing() as tx:
        held(tx, claim, status="failed")


def test_what_is_released_is_there_for_the_next(office: Office) -> None:
    begin(office, [line("a")])
    one, other = Claims(office.database, elsewhere(1)), Claims(office.database, elsewhere(2))
    claim = one.take()
    assert claim is not None
    one.release(claim)
    assert other.take() == Claim(claim.batch, claim.token + 1)


def test_what_a_dead_process_of_this_host_held_is_free(office: Office) -> None:
    begin(office, [line("a")])
    code = "from basert.jobs.claims import this_process; print(this_process())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    dead = Claims(office.database, done.stdout.strip()).take()
    assert dead is not None
    assert Claims(office.database, this_process()).take() == Claim(dead.batch, dead.token + 1)
    assert Claims(office.database, elsewhere(1)).take() is None  # this process lives


def test_who_is_gone() -> None:
    mine = this_process()
    host, pid, _ = mine.split("/")
    assert pid == str(os.getpid())
    assert not is_gone(mine)
    assert is_gone(f"{host}/{pid}/1")  # the number is another process' now
    assert not is_gone(f"other.1/{pid}/1")
    assert not is_gone("nonsense")


def test_many_who_want_the_same(opened: Opener) -> None:
    """Each with connections of its own, as processes have."""
    offices = [opened() for _ in range(4)]
    names = {begin(offices[0], [line("a")]).id for _ in range(8)}
    claimants = [Claims(office.database, elsewhere(i)) for i, office in enumerate(offices)]

    def grab(claimant: Claims) -> list[Claim]:
        mine: list[Claim] = []
        while (claim := claimant.take([one.batch for one in mine])) is not None:
            mine.append(claim)
        return mine

    with ThreadPoolExecutor(4) as threads:
        taken = [claim for some in threads.map(grab, claimants) for claim in some]
    assert {claim.batch for claim in taken} == names
    assert [claim.token for claim in taken] == [1] * 8


def test_the_clock_is_the_databases(office: Office) -> None:
    with office.database.reading() as tx:
        one = tx.scalar(sa.select(office.database.now()))
        assert 1.7e9 < one < 5e9
