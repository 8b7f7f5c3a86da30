"""Projects: what is in them, their limits, what they share with the default project, and what moves between them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.daemon import POOL_ONLY, ApiError, Daemon
from tests.support.projects import Project, project, refused

MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def pool(module_daemon: Daemon) -> None:
    module_daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))


def test_sums_of_limits(daemon: Daemon) -> None:
    with project(daemon, limits__memory="96MiB", limits__processes="150", limits__cpu="3") as made:
        with refused('has no "limits.cpu" config, either directly or via a profile'):
            made.make()
        all_of_them = {"limits.memory": "64MiB", "limits.processes": "100", "limits.cpu": "2"}
        first = made.make(config=all_of_them)
        with refused('Reached maximum aggregate value "3" for "limits.cpu"'):
            made.make(config=all_of_them)
        small = {"limits.memory": "32MiB", "limits.processes": "50", "limits.cpu": "1"}
        second = made.make(config=small)
        used = made.usage()
        assert (used["memory"], used["processes"], used["cpu"]) == ((96 * MIB, 96 * MIB), (150, 150), (3, 3))
        assert (used["instances"], used["containers"], used["virtual-machines"]) == ((-1, 2), (-1, 2), (-1, 0))
        with refused('Reached maximum aggregate value "96MiB" for "limits.memory"'):
            made.request("PATCH", f"instances/{second}", {"config": {"limits.memory": "33MiB"}})
        with refused('has no "limits.memory" config'):
            made.request("PATCH", f"instances/{second}", {"config": {"limits.memory": ""}})
        with refused("shares of the host"):
            made.request("PATCH", f"instances/{second}", {"config": {"limits.memory": "10%"}})
        with refused('"limits.memory" is too low: there currently are 96.00MiB'):
            made.set(limits__memory="95MiB")
        with refused("Reached maximum aggregate value"):
            made.make(source={"type": "copy", "source": first})
        made.set(limits__memory="1GiB", limits__processes="", limits__cpu="")
        copy = made.make(source={"type": "copy", "source": first})
        assert made.request("GET", f"instances/{copy}")["config"]["limits.memory"] == "64MiB"


def test_a_profile_counts_for_each_of_its_instances(daemon: Daemon) -> None:
    with project(daemon, limits__memory="100MiB") as made:
        made.request("PATCH", "profiles/default", {"config": {"limits.memory": "40MiB"}})
        made.make()
        made.make()
        with refused("Reached maximum aggregate value"):
            made.request("PATCH", "profiles/default", {"config": {"limits.memory": "60MiB"}})
        assert made.request("GET", "profiles/default")["config"] == {"limits.memory": "40MiB"}
        made.request("PATCH", "profiles/default", {"config": {"limits.memory": "50MiB"}})


def test_numbers_of_instances(daemon: Daemon) -> None:
    with project(daemon, limits__instances="2") as made:
        made.make()
        made.make()
        with refused("Reached maximum number of instances in project"):
            made.make()
        with refused('"limits.instances" is too low: there currently are 2 instances'):
            made.set(limits__instances="1")
        with refused('"limits.containers" is too low'):
            made.set(limits__containers="1")
        made.set(limits__instances="", limits__containers="2")
        with refused('Reached maximum number of instances of type "container"'):
            made.make()


def test_the_last_place_is_given_once(daemon: Daemon) -> None:
    def attempt(made: Project) -> int:
        try:
            made.make()
        except ApiError:
            return 0
        return 1

    with project(daemon, limits__instances="3") as made:
        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(attempt, [made] * 16)) == 3
        assert len(made.names("instances")) == 3


def test_what_failed_takes_no_place(daemon: Daemon) -> None:
    with project(daemon, limits__instances="1") as made:
        with refused("not found", 404):
            made.make(source={"type": "image", "alias": "nowhere"})
        kept = made.make()
        made.request("DELETE", f"instances/{kept}")
        made.make()
