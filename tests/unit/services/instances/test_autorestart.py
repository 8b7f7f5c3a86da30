from __future__ import annotations

from pylxc.services.instances.autorestart import ATTEMPTS, STABLE_SECONDS, Series


def test_restarts_come_later_each_time_and_end() -> None:
    series = Series()
    waits = []
    for at in range(ATTEMPTS):
        waits.append(series.next(float(at)))
        series.started_at = float(at)
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert series.next(ATTEMPTS) is None


def test_who_has_run_for_a_while_begins_anew() -> None:
    series = Series()
    assert [series.next(0.0), series.next(1.0)] == [0.5, 1]
    series.started_at = 2.0
    assert series.next(2.0 + STABLE_SECONDS) == 0.5
    assert series.next(1000.0) == 1, "one that did not even start has not run for a while"
