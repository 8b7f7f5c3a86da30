"""Scheduled work: jobs that are run every now and then, each beside everything else and never twice at the same time.

When a job last ran is in the database, so that a restart neither forgets nor repeats it. What it does is its service's.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pylxc.db import jobs as rows
from pylxc.db.engine import Database
from pylxc.db.models import Clock
from pylxc.errors import PylxcError
from pylxc.services.events import EventBus, Subscription

log = logging.getLogger(__name__)

LONGEST_SECONDS = 60.0
"""Between two looks at the clock, which may be set and stands still for timers while the machine sleeps."""
JITTER = 0.1
"""Part of its interval that a job comes later, at most: many machines shall not ask a server at the same moment."""
GRACE = dt.timedelta(minutes=5)
"""How long after its start a daemon begins what became due while there was none, at most."""
RETRY = dt.timedelta(hours=1)
"""After which a job that failed is tried again, if its interval is not shorter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is done every now and then.

    Attributes:
        name: its row's key.
        interval: from one run to the next; None for never.
        run: does it, in a thread of its own; what it raises is logged, and the job tried again.
    """

    name: str
    interval: dt.timedelta | None
    run: Callable[[], None]


class Scheduler:
    """Runs jobs when they are due.

    A new job is due an interval after it was first seen. One whose last run lies in the future, because the clock was
    set back, begins its interval anew: it comes late once, and never in a storm.

    Args:
        db: remembers when jobs ran.
        events: tell of changed configuration, which may have changed intervals.
        jobs: returns the jobs as they are now.
        clock: returns the time.
        chance: returns a number from 0 up to 1 to spread jobs with.
    """

    def __init__(
        self,
        db: Database,
        events: EventBus,
        jobs: Callable[[], Iterable[Job]],
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._db = db
        self._events = events
        self._jobs = jobs
        self._clock = clock
        self._chance = chance
        self._began = clock()
        self._lock = threading.Lock()
        self._running: set[str] = set()
        self._jitter: dict[str, float] = {}
        self._not_before: dict[str, dt.datetime] = {}
        self._wake = threading.Event()
        self._closing = False
        self._subscription: Subscription | None = None

    def start(self) -> None:
        """Begin to look after the jobs, in a thread."""
        self._subscription = self._events.subscribe({"lifecycle"}, None, self._on_event)
        threading.Thread(target=self._loop, name="scheduler", daemon=True).start()

    def close(self) -> None:
        """Begin no job any more; those that run are their services' to end."""
        self._closing = True
        if self._subscription:
            self._events.unsubscribe(self._subscription)
        self._wake.set()

    def run_due(self) -> float:
        """Begin the jobs that are due; return the seconds until it has to be looked again."""
        wait = LONGEST_SECONDS
        at = self._clock()
        jobs = {job.name: job for job in self._jobs()}
        with self._lock, self._db.transaction() as session:
            ran = rows.last_runs(session)
            rows.forget(session, ran.keys() - jobs.keys())
            for name, job in jobs.items():
                if name not in ran or ran[name] > at:
                    ran[name] = at
                    rows.record(session, name, at)
                if job.interval is None or name in self._running:
                    continue
                left = (self._due(job, job.interval, ran[name], at) - at).total_seconds()
                if left > 0:
                    wait = min(wait, left)
                elif not self._closing:
                    self._running.add(name)
                    threading.Thread(target=self._run, args=(job, at), name=f"job-{name}", daemon=True).start()
        return wait

    def _due(self, job: Job, interval: dt.timedelta, last: dt.datetime, at: dt.datetime) -> dt.datetime:
        jitter = self._jitter.setdefault(job.name, self._chance() * JITTER)
        earliest = self._not_before.setdefault(job.name, self._began + self._chance() * min(interval, GRACE))
        if earliest - at > RETRY:  # the clock was set back
            earliest = self._not_before[job.name] = at
        return max(last + interval * (1 + jitter), earliest)

    def _run(self, job: Job, began: dt.datetime) -> None:
        done = False
        try:
            job.run()
            done = True
        except PylxcError as error:
            if not self._closing:
                log.warning("The job %s failed: %s", job.name, error)
        except Exception:
            log.exception("The job %s failed", job.name)
        with self._lock:
            self._running.discard(job.name)
            self._not_before[job.name] = self._clock() + (dt.timedelta() if done else min(job.interval or RETRY, RETRY))
            if done:
                with self._db.transaction() as session:
                    rows.record(session, job.name, began)
        self._wake.set()

    def _loop(self) -> None:
        while not self._closing:
            self._wake.clear()
            try:
                wait = self.run_due()
            except Exception:
                log.exception("The scheduler failed")
                wait = LONGEST_SECONDS
            self._wake.wait(wait)

    def _on_event(self, subscription: Subscription) -> None:
        for text in subscription.take():
            action = json.loads(text)["metadata"]["action"]
            if action == "config-updated" or action.startswith("project-"):
                self._wake.set()
