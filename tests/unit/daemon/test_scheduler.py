"""When jobs run: by a clock of the test's own, a real database, and real threads."""

from __future__ import annotations

import datetime as dt
import queue
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pylxc.daemon.scheduler import GRACE, JITTER, LONGEST_SECONDS, RETRY, Job, Scheduler
from pylxc.db.engine import Database
from pylxc.db.migrate import open_database
from pylxc.errors import Internal
from pylxc.services.events import EventBus

HOUR = dt.timedelta(hours=1)
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Bench:
    """A scheduler of one job, "tidy", whose runs are counted; the test is its clock."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.events = EventBus()
        self.at = START
        self.interval: dt.timedelta | None = 6 * HOUR
        self.names = ["tidy"]
        self.fail: Exception | None = None
        self.begun: queue.Queue[str] = queue.Queue()
        self.may_end = threading.Event()
        self.may_end.set()
        self.restart()

    def restart(self, chance: float = 0) -> None:
        self.scheduler = Scheduler(self.db, self.events, self.jobs, lambda: self.at, lambda: chance)

    def jobs(self) -> Iterator[Job]:
        for name in self.names:
            yield Job(name=name, interval=self.interval, run=partial(self.run, name))

    def run(self, name: str) -> None:
        self.begun.put(name)
        assert self.may_end.wait(20)
        if self.fail:
            raise self.fail

    def pass_time(self, time: dt.timedelta = dt.timedelta()) -> int:
        """Let time pass, look once, and return how many jobs ran, to their ends."""
        self.at += time
        before = set(threading.enumerate())
        self.scheduler.run_due()
        for thread in set(threading.enumerate()) - before:
            thread.join(20)
        count = self.begun.qsize()
        while not self.begun.empty():
            self.begun.get()
        return count


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    db = open_database(str(tmp_path / "pylxc.db"))
    yield Bench(db)
    db.close()


def test_a_new_job_runs_after_an_interval_and_then_every_interval(bench: Bench) -> None:
    assert bench.pass_time() == 0
    assert bench.pass_time(5.9 * HOUR) == 0
    assert bench.pass_time(0.1 * HOUR) == 1
    assert bench.pass_time(5.9 * HOUR) == 0
    assert bench.pass_time(0.1 * HOUR) == 1


def test_what_was_missed_is_done_once(bench: Bench) -> None:
    bench.pass_time()
    assert bench.pass_time(100 * HOUR) == 1
    assert bench.pass_time() == 0


def test_a_restart_neither_forgets_nor_repeats(bench: Bench) -> None:
    bench.pass_time()
    bench.pass_time(6 * HOUR)
    bench.restart()
    assert bench.pass_time(5.9 * HOUR) == 0
    bench.restart()
    assert bench.pass_time(0.1 * HOUR) == 1


def test_what_is_due_at_the_start_waits_a_moment(bench: Bench) -> None:
    bench.pass_time()
    bench.at += 10 * HOUR
    bench.restart(chance=0.5)
    assert bench.pass_time() == 0
    assert bench.pass_time(GRACE / 2) == 1


def test_jitter(bench: Bench) -> None:
    bench.restart(chance=0.5)
    bench.pass_time()
    assert bench.pass_time(6 * HOUR) == 0
    assert bench.pass_time(6 * HOUR * JITTER * 0.4) == 0
    assert bench.pass_time(6 * HOUR * JITTER * 0.1) == 1


def test_a_changed_interval_counts_at_once(bench: Bench) -> None:
    bench.pass_time()
    assert bench.pass_time(2 * HOUR) == 0
    bench.interval = HOUR
    assert bench.pass_time() == 1
    bench.interval = None
    assert bench.pass_time(100 * HOUR) == 0
    bench.interval = HOUR
    assert bench.pass_time() == 1


def test_a_clock_that_is_set_back_begins_the_interval_anew(bench: Bench) -> None:
    bench.pass_time()
    assert bench.pass_time(6 * HOUR) == 1
    assert bench.pass_time(-1000 * HOUR) == 0
    assert bench.pass_time(5.9 * HOUR) == 0
    assert bench.pass_time(0.1 * HOUR) == 1
    bench.restart()
    assert bench.pass_time(-3 * HOUR) == 0
    assert bench.pass_time(6 * HOUR) == 1


def test_a_failed_job_is_tried_again_soon(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.pass_time()
    bench.fail = Internal("the server is gone")
    assert bench.pass_time(6 * HOUR) == 1
    assert caplog.messages == ["The job tidy failed: the server is gone"]
    assert bench.pass_time(RETRY * 0.9) == 0
    bench.fail = None
    assert bench.pass_time(RETRY * 0.1) == 1
    assert bench.pass_time(5 * HOUR) == 0
    bench.fail = ZeroDivisionError()
    assert bench.pass_time(HOUR) == 1
    assert bench.pass_time(-5 * HOUR) == 0, "nor does a clock that is set back keep it from being tried"
    bench.fail = None
    assert bench.pass_time(6 * HOUR) == 1


def test_a_job_never_runs_beside_itself(bench: Bench) -> None:
    bench.scheduler.run_due()
    bench.may_end.clear()
    bench.at += 6 * HOUR
    bench.scheduler.run_due()
    assert bench.begun.get(timeout=20) == "tidy"
    bench.at += 6 * HOUR
    bench.scheduler.run_due()
    bench.may_end.set()
    assert bench.pass_time() == 0


def test_a_job_that_is_gone_is_forgotten(bench: Bench) -> None:
    bench.names = ["tidy", "sweep"]
    bench.pass_time()
    bench.names = ["tidy"]
    assert bench.pass_time(6 * HOUR) == 1
    bench.names = ["tidy", "sweep"]
    assert bench.pass_time(HOUR) == 0


def test_how_long_it_may_sleep(bench: Bench) -> None:
    assert bench.scheduler.run_due() == LONGEST_SECONDS
    bench.at += 6 * HOUR - dt.timedelta(seconds=5)
    assert bench.scheduler.run_due() == 5


def test_it_looks_again_when_configuration_changes(bench: Bench) -> None:
    bench.scheduler.start()
    try:
        bench.scheduler.run_due()
        bench.at += 2 * HOUR
        bench.interval = HOUR
        bench.events.lifecycle("instance-started", "/1.0/instances/c1", project="default")
        bench.events.lifecycle("config-updated", "/1.0", project="")
        assert bench.begun.get(timeout=20) == "tidy"
    finally:
        bench.scheduler.close()
    bench.at += 2 * HOUR
    assert bench.pass_time() == 0, "nothing begins after the end"
