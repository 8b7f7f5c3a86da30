"""Parts of the runtime that work on data."""

from __future__ import annotations

import json
import os
import select
from pathlib import Path

from pylxc.errors import Conflict
from pylxc.runtime import lean, protocol
from pylxc.runtime.console import Ring
from pylxc.runtime.container import cgroup_name
from pylxc.runtime.hardening import seccomp_file
from pylxc.runtime.proxy.loop import Loop
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
        protocol.send(theirs, {"last": "words"})
        protocol.send(ours, {"never": "read"})
        theirs.close()
        received = protocol.receive(ours)
        assert received == ({"last": "words"}, [])
        assert protocol.receive(ours) is None


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


def test_a_proxy_takes_no_event_of_a_closed_descriptor_for_one_of_its_successor() -> None:
    loop = Loop()
    ready, other, quiet = (os.eventfd(initial) for initial in (1, 1, 0))
    heard: list[int] = []

    def replace(one: int, two: int) -> None:
        loop.forget(one)
        loop.forget(two)
        os.dup2(quiet, two)
        loop.watch(two, select.EPOLLIN, heard.append)
        loop.again(loop.end)

    loop.watch(ready, select.EPOLLIN, lambda _: replace(ready, other))
    loop.watch(other, select.EPOLLIN, lambda _: replace(other, ready))
    loop.run()
    assert heard == []
    for fd in (ready, other, quiet):
        os.close(fd)


def test_a_filter_that_a_power_cut_has_emptied_is_compiled_again(tmp_path: Path) -> None:
    confinement = Confinement(seccomp=(SyscallRule("reboot", "kill"),))
    path = Path(seccomp_file(str(tmp_path), confinement))
    whole = path.read_bytes()
    assert whole
    path.write_bytes(b"")
    assert seccomp_file(str(tmp_path), confinement) == str(path)
    assert path.read_bytes() == whole
