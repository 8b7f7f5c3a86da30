"""When snapshots are due."""

from __future__ import annotations

import datetime as dt

import pytest

from pylxc.services.schedules import is_due


def at(hour: int, minute: int, day: int = 2, second: int = 0) -> dt.datetime:
    return dt.datetime(2026, 3, day, hour, minute, second).astimezone()


@pytest.mark.parametrize(
    ("schedule", "since", "now", "due"),
    [
        ("30 4 * * *", at(4, 29), at(4, 30), True),
        ("30 4 * * *", at(4, 30), at(4, 31), False),
        ("30 4 * * *", at(4, 29, second=59), at(4, 30, second=1), True),
        ("30 4 * * *", at(4, 0), at(4, 29), False),
        ("30 4 * * *", at(12, 0, day=1), at(12, 0, day=2), True),
        ("*/5 * * * *", at(4, 4), at(4, 5), True),
        ("*/5 * * * *", at(4, 6), at(4, 9), False),
        ("30 4 * * *", at(4, 40), at(4, 30), False),
        ("@hourly", at(4, 0), at(5, 0), True),
        ("@daily", at(0, 0, day=1), at(0, 0, day=2), True),
        ("@never", at(0, 0, day=1), at(0, 0, day=9), False),
        ("@startup", at(0, 0, day=1), at(0, 0, day=9), False),
        ("@never, @hourly", at(4, 0), at(5, 0), True),
        ("", at(4, 0), at(5, 0), False),
    ],
)
def test_is_due(schedule: str, since: dt.datetime, now: dt.datetime, due: bool) -> None:
    assert is_due(schedule, "web", since, now) is due


def test_names_are_spread_over_the_hour() -> None:
    minutes = {
        minute
        for number in range(30)
        for minute in range(60)
        if is_due("@hourly", f"web{number}", at(4, minute) - dt.timedelta(minutes=1), at(4, minute))
    }
    assert len(minutes) > 15
