"""Mounts and device nodes of a running container that come and go.

A process of its own enters the container. What comes from the host is opened before that, with the host's root in
view; afterwards every path is the guest's, and so is what lies behind it. The guest cannot see the process (it stays
outside of the pid namespace), and a file system of the guest that hangs ends it by an alarm.
"""

from __future__ import annotations

import errno
import os
import signal
import stat

from pylxc.errors import Unavailable
from pylxc.kernel import caps, mount, namespaces
from pylxc.kernel.fds import close
from pylxc.kernel.openat2 import make_path
from pylxc.runtime import attach, lean, nodes, protocol, rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pylxc.runtime.spawn import Child
    from pylxc.runtime.spec import DeviceNode, IdMap, Mount

    Spawn = Callable[[str, dict[str, Any]], Child]

_STALLED_SECONDS = 30
_NAMESPACES = namespaces.CLONE_NEWNS | namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWIPC | namespaces.CLONE_NEWCGROUP
_STAGE = "/proc"
"""Any directory will do: what is staged there is in a mount namespace that nobody else sees."""


def plug(spawn: Spawn, run_dir: str, mounts: Sequence[Mount], devices: Sequence[DeviceNode]) -> None:
    """Give a running container mounts and nodes, all or none.

    Args:
        spawn: makes a process of a kind: `Runtime.spawn`.
        run_dir: the container's.
        mounts: as a ContainerSpec has them.
        devices: likewise; what may be done with them is the control group's matter.

    Raises:
        PylxcError: the source is missing, or the guest does not let us.
    """
    from dataclasses import asdict

    wanted = {"mounts": [asdict(each) for each in mounts], "nodes": [asdict(each) for each in devices]}
    _await(spawn("hotplug", {"op": "plug", "run_dir": run_dir, **wanted}))


def unplug(spawn: Spawn, run_dir: str, targets: Sequence[str]) -> None:
    """Take mounts and nodes from a running container, even if they are busy; what is not there is no error.

    Args:
        spawn: makes a process of a kind: `Runtime.spawn`.
        run_dir: the container's.
        targets: paths inside, as they were plugged.

    Raises:
        PylxcError: the guest does not let us.
    """
    _await(spawn("hotplug", {"op": "unplug", "run_dir": run_dir, "targets": list(targets)}))


def adjust(spawn: Spawn, run_dir: str, entry: Mount) -> None:
    """Change the options of a file system that was plugged into a running container.

    Args:
        spawn: makes a process of a kind: `Runtime.spawn`.
        run_dir: the container's.
        entry: as it shall be; its target and kind are as they were.

    Raises:
        PylxcError: the file system refuses; it is as it was.
    """
    from dataclasses import asdict

    _await(spawn("hotplug", {"op": "adjust", "run_dir": run_dir, "mount": asdict(entry)}))


def _await(child: Child) -> None:
    try:
        received = child.receive(_STALLED_SECONDS + 5)
    except TimeoutError:
        child.kill()
        received = None
    finally:
        child.close()
    if received is None:
        raise Unavailable("The instance's file system does not answer, or the instance has just stopped")
    if "error" in received[0]:
        raise protocol.rebuild_error(received[0])


def main(payload: dict[str, Any], fds: list[int]) -> None:
    """Do one request; the spawner's child of kind "hotplug", which tells the daemon of errors.

    Args:
        payload: `op`, `run_dir`, and what `plug` and `unplug` put there.
        fds: the result socket.

    Raises:
        PylxcError: the container has just stopped.
        OSError: see the steps.
    """
    caps.set_name("pylxc-hotplug")
    caps.set_dumpable(False)
    signal.alarm(_STALLED_SECONDS)
    daemon = protocol.adopt(fds[0])
    state = attach.read_state(payload["run_dir"])
    pidfd = attach.open_init(state)
    if payload["op"] == "plug":
        _plug(payload, state["init_pid"], pidfd, lean.idmap(state["spec"]["idmap"]))
    else:
        _enter(pidfd, _NAMESPACES | (namespaces.CLONE_NEWUSER if state["spec"]["idmap"] else 0))
        if payload["op"] == "adjust":
            _adjust(*lean.records([payload["mount"]]))
        for target in payload.get("targets", ()):
            _unmount(target)
    protocol.send(daemon, {"done": True})


def _plug(payload: dict[str, Any], pid: int, pidfd: int, idmap: IdMap | None) -> None:
    unprivileged = idmap is not None
    mounts, wanted = lean.records(payload["mounts"]), lean.records(payload["nodes"])
    userns_fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC) if unprivileged else -1
    trees = [-1 if each.fstype else rootfs.open_bind(each, userns_fd) for each in mounts]
    if unprivileged or wanted:
        _make_stage()
    trees += [nodes.open_node(f"{_STAGE}/node{index}", each, idmap) for index, each in enumerate(wanted)]
    if unprivileged:
        _lock(trees, userns_fd)
    _enter(pidfd, _NAMESPACES)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    done: list[str] = []
    try:
        for tree, each in zip(trees, mounts, strict=False):
            rootfs.put(root, each, tree)
            done += rootfs.targets(each)
        for tree, each in zip(trees[len(mounts) :], wanted, strict=True):
            _attach(root, tree, each.path)
            done.append(each.path)
    except BaseException:
        for target in reversed(done):
            _unmount(target)
        raise


def _make_stage() -> None:
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mount.set_propagation("/", mount.MS_REC | mount.MS_PRIVATE)
    stage = mount.new("tmpfs", (("mode", "0700"),))
    mount.attach_at(stage, _STAGE)
    os.close(stage)


def _lock(trees: list[int], userns_fd: int) -> None:
    """Join the container's user namespace; its root is to keep its hands from attributes such as read-only.

    The kernel locks the attributes of mounts in the copy of a mount namespace that has less rights than the original.
    """
    places = [index for index, tree in enumerate(trees) if tree >= 0]
    for index in places:
        _make_place(f"{_STAGE}/{index}", trees[index])
        mount.attach_at(trees[index], f"{_STAGE}/{index}")
        os.close(trees[index])
    namespaces.setns(userns_fd, namespaces.CLONE_NEWUSER)
    os.close(userns_fd)
    namespaces.unshare(namespaces.CLONE_NEWNS)
    for index in places:
        trees[index] = mount.open_tree(f"{_STAGE}/{index}", recursive=True)


def _make_place(path: str, tree: int) -> None:
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.mkdir(path)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))


def _enter(pidfd: int, flags: int) -> None:
    """Move into the container's file system for good, as its root."""
    namespaces.setns(pidfd, flags)
    os.close(pidfd)
    attach.forget_host()
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    caps.set_dumpable(False)  # changing ids has reset it
    os.umask(0o022)


def _attach(root: int, tree: int, path: str) -> None:
    target = make_path(root, path, "file")
    try:
        mount.attach(tree, target, path=path)
    finally:
        close([target, tree])


def _adjust(entry: Mount) -> None:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    target = make_path(root, entry.target, "")
    rootfs.adjust(entry, target)
    close([target, root])


def _unmount(path: str) -> None:
    """Unmount what is on `path`, and remove the empty file that a device node was mounted on."""
    path = os.path.realpath(path)
    try:
        mount.unmount(path)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):  # the guest has done so itself
            return
        raise
    if path.startswith("/dev/"):
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode) and not status.st_size:
            os.unlink(path)
