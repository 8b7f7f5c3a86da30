"""Which CPUs instances run on: those that `limits.cpu` names, or a number of them, spread over all.

A number is spread anew whenever an instance comes or goes, its limit changes, or a CPU does; as few instances as
possible are moved by that.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
from collections.abc import Callable, Collection, Mapping

from pylxc.errors import BadRequest, PylxcError
from pylxc.kernel.uevents import Uevents
from pylxc.kernel.waiting import Waiting

log = logging.getLogger(__name__)

Sets = dict[str, set[int]]
"""CPUs by the instance's key."""


class Cpus:
    """The CPUs of running instances; thread-safe.

    Args:
        apply: gives a running container a cpuset list, all CPUs when None; one that does not run is no error.
    """

    def __init__(self, apply: Callable[[str, str | None], None]) -> None:
        self._apply = apply
        self._lock = threading.Lock()
        self._limits: dict[str, str] = {}
        self._sets: Sets = {}

    def check(self, limit: str) -> None:
        """Check a value of `limits.cpu` that is to act at once.

        Raises:
            BadRequest: none of its CPUs is there.
        """
        available = os.sched_getaffinity(0)
        if is_set(limit) and not parse(limit) & available:
            raise BadRequest(f"limits.cpu: none of the CPUs {limit} is online", hint=f"there are {text(available)}")

    def place(self, key: str, limit: str) -> str | None:
        """Return the cpuset list that an instance gets for a value of `limits.cpu`, None for all CPUs.

        It is the caller's to apply; the others that run are moved where that evens things out. A set of which no CPU is
        there is none.
        """
        with self._lock:
            self._limits[key] = limit
            self._sets.pop(key, None)
            self._spread(os.sched_getaffinity(0), but=key)
            return self._list(key)

    def adopt(self, key: str, limit: str, cpus: str) -> None:
        """Take note of an instance that runs already on the CPUs of a cpuset list; `spread` is to follow."""
        with self._lock:
            self._limits[key] = limit
            if limit and cpus:
                self._sets[key] = parse(cpus)

    def has_own(self, key: str) -> bool:
        """Return whether an instance has CPUs of its own, or all of them."""
        with self._lock:
            return key in self._sets

    def release(self, key: str) -> None:
        """Take note that an instance has ended."""
        with self._lock:
            if self._limits.pop(key, ""):
                self._sets.pop(key, None)
                self._spread(os.sched_getaffinity(0))

    def settle(self, key: str, placed: str | None) -> None:
        """Give an instance what it should have by now: while it was starting it could not be moved.

        Args:
            key: the instance.
            placed: what it has started with.
        """
        with self._lock:
            if key in self._limits and self._list(key) != placed:
                self._give(key)

    def spread(self) -> None:
        """Spread all of them anew: a CPU has come or gone."""
        with self._lock:
            available = os.sched_getaffinity(0)
            self._spread(available)
            # The kernel takes a CPU that goes from the sets of v1 for good.
            for key in self._limits:
                self._give(key)

    def _spread(self, available: Collection[int], but: str = "") -> None:
        before = {key: set(cpus) for key, cpus in self._sets.items()}
        self._sets = spread(available, self._limits, before)
        for key in self._limits:
            if key != but and self._sets.get(key) != before.get(key):
                self._give(key)

    def _list(self, key: str) -> str | None:
        return text(self._sets[key]) if key in self._sets else None

    def _give(self, key: str) -> None:
        try:
            self._apply(key, self._list(key))
        except PylxcError as error:
            log.warning("Failed moving instance %s to other CPUs: %s", key, error)


class CpuWatch:
    """A thread that waits for CPUs to come and go.

    Args:
        changed: is called after that.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._events = Uevents()
        self._waiting = Waiting("cpu-watch", self._run, {self._events.fileno(): select.POLLIN})

    def close(self) -> None:
        """End the thread."""
        self._waiting.close()
        self._events.close()

    def _run(self, waiting: Waiting) -> None:
        while waiting.wait():
            try:
                event = self._events.read()
                concerned = event.get("SUBSYSTEM") == "cpu" and event.get("ACTION") in ("online", "offline")
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    log.error("CPUs that come and go are not noticed any more: %s", error)
                    return
                concerned = True
            if concerned:
                self._changed()


def spread(available: Collection[int], limits: Mapping[str, str], before: Mapping[str, set[int]]) -> Sets:
    """Return the CPUs of instances; those that are not in the answer have all.

    Args:
        available: the CPUs that there are.
        limits: `limits.cpu` by instance, empty for none.
        before: what they have so far; what need not change does not.
    """
    load = dict.fromkeys(available, 0)
    found: Sets = {}
    counted: dict[str, int] = {}
    for key, limit in limits.items():
        if is_set(limit):
            if cpus := parse(limit) & load.keys():
                found[key] = cpus
        elif limit and 0 < int(limit) < len(load):
            counted[key] = int(limit)
            found[key] = set(sorted(before.get(key, set()) & load.keys())[: int(limit)])
    for cpus in found.values():
        for cpu in cpus:
            load[cpu] += 1
    for key, count in counted.items():
        while len(found[key]) < count:
            cpu = min(load.keys() - found[key], key=lambda each: (load[each], each))
            found[key].add(cpu)
            load[cpu] += 1
    while move := _move(load, {key: found[key] for key in counted}):
        key, source, target = move
        found[key] = found[key] - {source} | {target}
        load[source] -= 1
        load[target] += 1
    return found


def _move(load: Mapping[int, int], sets: Sets) -> tuple[str, int, int] | None:
    """Return an instance and the CPUs that it should leave and take for the load to be more even, None for none."""
    for source in sorted(load, key=lambda cpu: -load[cpu]):
        for target in sorted(load, key=lambda cpu: load[cpu]):
            if load[source] - load[target] < 2:
                break
            for key, cpus in sets.items():
                if source in cpus and target not in cpus:
                    return key, source, target
    return None


def is_set(limit: str) -> bool:
    """Return whether a value of `limits.cpu` names CPUs, instead of how many there are to be."""
    return bool(limit) and not limit.isdigit()


def parse(value: str) -> set[int]:
    """Return the CPUs of a list such as 0-3,6."""
    cpus: set[int] = set()
    for part in value.split(","):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def text(cpus: Collection[int]) -> str:
    """Return CPUs as a cpuset list."""
    return ",".join(str(cpu) for cpu in sorted(cpus))
