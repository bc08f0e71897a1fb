"""When a dead process is started again, and when that is given up."""

from __future__ import annotations

import sys

import pytest

from basert.config import ServeConfig
from basert.logs import Output
from basert.supervisor import restarts
from basert.supervisor.child import Child
from basert.supervisor.restarts import QUIET_SECONDS, Kept, Restarts

CONFIG = ServeConfig(restart_limit=3, restart_backoff=0.01)


def test_waits_double_up_to_the_most_then_it_is_given_up() -> None:
    after = Restarts(limit=5, first=1.0, most=3.0)
    assert [after.after_death(0.0) for _ in range(5)] == [1.0, 2.0, 3.0, 3.0, None]
    assert after.count == 4


def test_a_quiet_time_forgets_the_past() -> None:
    after = Restarts(limit=3, first=1.0, most=9.0)
    assert [after.after_death(0.0) for _ in range(2)] == [1.0, 2.0]
    assert after.after_death(QUIET_SECONDS) == 1.0
    assert after.after_death(QUIET_SECONDS - 1) == 2.0
    assert after.after_death(0.0) is None


class Dying(Kept):
    """A process that runs `code`; its first `good` incarnations are of use."""

    what = "the dying one"

    def __init__(self, code: str, good: int = 0) -> None:
        super().__init__(CONFIG)
        self.reasons: list[str] = []
        self._code = code
        self._good = good

    def _start(self) -> Child:
        if len(self.reasons) < self._good:
            self.useful()
        return Child("dying", [sys.executable, "-c", self._code], Output())

    def _died(self, reason: str, wait: float | None) -> None:
        self.reasons.append(reason)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("", "it ended with status 0"),
        ("raise SystemExit(7)", "it ended with status 7"),
        ("raise ValueError('no cheese')", "ValueError: no cheese (it ended with status 1)"),
        ("import os; os.abort()", "it was ended by SIGABRT"),
        (
            "import os; print('x', flush=True); os.kill(os.getpid(), 9)",
            "it was ended by SIGKILL; perhaps memory ran out",
        ),
    ],
)
async def test_deaths_are_explained(code: str, reason: str) -> None:
    dying = Dying(code)
    await dying.run()
    assert dying.reasons == [reason] * 3
    assert dying.failure == reason


async def test_deaths_after_useful_lives_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "QUIET_SECONDS", 0.0001)
    dying = Dying("", good=5)
    await dying.run()
    assert len(dying.reasons) == 5 + CONFIG.restart_limit - 1


async def test_what_cannot_be_started_is_given_up_too() -> None:
    class Missing(Dying):
        def _start(self) -> Child:
            return Child("missing", ["/nowhere/at/all"], Output())

    missing = Missing("")
    await missing.run()
    assert missing.reasons == ["it cannot be started: No such file or directory"] * 3
