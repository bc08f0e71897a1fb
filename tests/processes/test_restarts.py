"""When a dead process is started again."""

from basert.supervisor.restarts import QUIET_SECONDS, Restarts


def test_waits_double_up_to_the_most_then_it_is_given_up() -> None:
    restarts = Restarts(limit=5, first=1.0, most=3.0)
    assert [restarts.after_death(0.0) for _ in range(5)] == [1.0, 2.0, 3.0, 3.0, None]
    assert restarts.count == 4


def test_a_quiet_time_forgets_the_past() -> None:
    restarts = Restarts(limit=3, first=1.0, most=9.0)
    assert [restarts.after_death(0.0) for _ in range(2)] == [1.0, 2.0]
    assert restarts.after_death(QUIET_SECONDS) == 1.0
    assert restarts.after_death(QUIET_SECONDS - 1) == 2.0
    assert restarts.after_death(0.0) is None
