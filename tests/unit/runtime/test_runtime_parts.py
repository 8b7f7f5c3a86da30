"""Parts of the runtime that work on data."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pylxc.errors import Conflict
from pylxc.runtime import lean, protocol
from pylxc.runtime.console import Ring
from pylxc.runtime.container import cgroup_name
from pylxc.runtime.spec import Comparison, Confinement, ContainerSpec, DeviceNode, IdMap, Mount, SyscallRule


def spec() -> ContainerSpec:
    """Return a container with something of everything."""
    return ContainerSpec(
        key="p_c1",
        hostname="c1",
        run_dir="/run/c1",
        log_dir="/log/c1",
        rootfs="/rootfs",
        idmap=IdMap.single(100000, 65536),
        environment={"A": "b"},
        mounts=(Mount(source="/a", target="/b", options=("ro",)),),
        devices=(DeviceNode(source="/dev/x", path="/dev/y", kind="char", major=1, minor=2),),
        confinement=Confinement(
            seccomp=(SyscallRule("reboot", "kill", (Comparison(0, "&=", 1, 3),)),), rlimits=(("nofile", 1, 2),)
        ),
    )


def test_a_spec_survives_json() -> None:
    assert ContainerSpec.from_json(json.loads(json.dumps(spec().to_json()))) == spec()


def test_a_lean_spec_reads_the_same() -> None:
    full, read = spec(), lean.read_spec(json.loads(json.dumps(spec().to_json())))
    assert read.idmap is not None
    assert full.idmap is not None
    assert (read.key, read.environment, read.time_namespace) == (full.key, full.environment, False)
    assert vars(read.idmap.uids[0]) == {"inside": 0, "outside": 100000, "length": 65536}
    assert read.mounts[0].target == "/b"
    assert read.devices[0].minor == 2
    assert read.limits.memory is None
    assert read.confinement.seccomp_default == "allow"


def test_messages_of_any_size_with_descriptors() -> None:
    ours, theirs = protocol.pair()
    with ours, theirs:
        for size in (0, 100, 100_000, 3_000_000):
            protocol.send(ours, {"data": "x" * size}, [0])
            received = protocol.receive(theirs)
            assert received is not None
            message, fds = received
            assert len(message["data"]) == size
            assert len(fds) == 1
            os.close(fds[0])
        ours.close()
        assert protocol.receive(theirs) is None


def test_errors_keep_their_class_and_text() -> None:
    error = protocol.rebuild_error(protocol.describe_error(Conflict("taken", hint="choose another")))
    assert isinstance(error, Conflict)
    assert str(error) == "taken (choose another)"
    error = protocol.rebuild_error(protocol.describe_error(FileNotFoundError(2, "No such file", "/x"), "mounting"))
    assert str(error) == "Failed mounting: No such file: '/x'"


def test_the_ring_keeps_the_newest() -> None:
    ring = Ring(1000)
    for number in range(1000):
        ring.append(b"%04d" % number)
    assert ring.content().endswith(b"09980999")
    assert len(ring.content()) == 1000
    ring.clear()
    assert ring.content() == b""
    none = Ring(0)
    none.append(b"x")
    assert none.content() == b""


def test_control_groups_of_two_state_directories_differ(tmp_path: Path) -> None:
    assert cgroup_name("c1", "/a/run/instances/c1") != cgroup_name("c1", "/b/run/instances/c1")
    assert cgroup_name("c1", "/a/run/instances/c1").startswith("c1.")
