"""How CPUs are shared out."""

from __future__ import annotations

import os

import pytest

from pylxc.errors import BadRequest
from pylxc.services.instances.cpus import Cpus, parse, spread

FOUR = {0, 1, 2, 3}


def loads(sets: dict[str, set[int]]) -> list[int]:
    """Return how many instances each of four CPUs has."""
    return [sum(cpu in cpus for cpus in sets.values()) for cpu in sorted(FOUR)]


def test_sets_are_taken_as_they_are_and_the_rest_goes_around_them() -> None:
    assert parse("0-2,5") == {0, 1, 2, 5}
    sets = spread(FOUR, {"a": "1-1", "b": "0-1", "c": "2", "d": ""}, {})
    assert sets == {"a": {1}, "b": {0, 1}, "c": {2, 3}}


def test_who_wants_all_or_more_has_all() -> None:
    assert spread(FOUR, {"a": "4", "b": "9", "c": "0"}, {}) == {}


def test_cpus_that_are_not_there_are_left_out() -> None:
    assert spread(FOUR, {"a": "3-7", "b": "8-9"}, {}) == {"a": {3}}


def test_counts_are_evened_out_as_instances_come_and_go() -> None:
    limits = {f"c{number}": "1" for number in range(8)}
    sets = spread(FOUR, limits, {})
    assert loads(sets) == [2, 2, 2, 2]
    # All of two CPUs go: the fewest possible are moved.
    left = {key: limit for key, limit in limits.items() if not sets[key] & {0, 1}}
    after = spread(FOUR, left, {key: sets[key] for key in left})
    assert loads(after) == [1, 1, 1, 1]
    assert sum(after[key] != sets[key] for key in left) == 2
    assert spread(FOUR, left, after) == after


def test_cpus_go_offline_and_come_back() -> None:
    limits = {"a": "2", "b": "2", "c": "1"}
    sets = spread(FOUR, limits, {})
    fewer = spread({0, 3}, limits, sets)
    assert fewer.keys() == {"c"}
    assert fewer["c"] <= {0, 3}
    assert max(loads(spread(FOUR, limits, fewer))) == 2


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_others_are_told_only_when_they_have_to_move() -> None:
    told: dict[str, str | None] = {}
    cpus = Cpus(told.__setitem__)
    first, second, *_ = sorted(os.sched_getaffinity(0))
    assert cpus.place("a", "1") == str(first)
    assert cpus.place("b", "1") == str(second)
    assert told == {}
    assert cpus.place("c", f"{first}-{first}") == str(first)
    cpus.release("b")
    assert told == {"a": str(second)}
    with pytest.raises(BadRequest, match="none of the CPUs 5000-5001 is online"):
        cpus.check("5000-5001")
    assert cpus.place("c", "5000-5001") is None
    assert not cpus.has_own("c")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_who_was_to_be_moved_while_it_started_is_moved_then() -> None:
    told: dict[str, str | None] = {}
    cpus = Cpus(told.__setitem__)
    first, second, *_ = sorted(os.sched_getaffinity(0))
    placed = cpus.place("a", "1")
    cpus.settle("a", placed)
    assert told == {}
    assert cpus.place("b", f"{first}-{first}") == str(first)
    told.clear()
    cpus.settle("a", placed)
    assert told == {"a": str(second)}
