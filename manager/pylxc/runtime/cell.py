"""Where the files of a container are touched: inside its user and mount namespace, as its root.

Of a running container that is its own view, mounts and all. A stopped one gets namespaces of the same kind around its
tree. Nothing that a guest puts into its tree (links, mounts, devices) leads out of there.
"""

from __future__ import annotations

import os
from typing import Any

from pylxc.kernel import caps, idmap, mount, namespaces
from pylxc.runtime import attach

_KEPT = ("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "setfcap")


def enter(payload: dict[str, Any]) -> int:
    """Move this single-threaded process into a container's files, for good; its root directory is the container's.

    Args:
        payload: `run_dir` of a running container, or of a stopped one `rootfs` and `idmap` (as `IdMap.from_json`
            takes it; None for a privileged one), `shift` when the owners on the disk are the container's own ids,
            `readonly` when nothing of it may change.

    Returns:
        A descriptor of the host's /proc: what this process has open can be named there, nothing else.

    Raises:
        BadRequest: the container has just stopped.
        OSError: EINVAL when the file system of the tree cannot map owners.
    """
    caps.set_dumpable(False)
    proc_fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if "run_dir" in payload:
        _enter_running(payload["run_dir"])
    else:
        _enter_stopped(payload["rootfs"], payload["idmap"], payload["shift"], payload.get("readonly", False))
    attach.forget_host()
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    caps.drop(tuple(name for name in caps.NAMES if name not in _KEPT))
    caps.set_dumpable(False)  # changing ids has reset it
    os.umask(0)
    os.chdir("/")
    return proc_fd


def _enter_running(run_dir: str) -> None:
    state = attach.read_state(run_dir)
    pidfd = attach.open_init(state)
    # Not only those of mounts and users: what stands in /proc/sys depends on who looks.
    flags = (
        namespaces.CLONE_NEWNS
        | namespaces.CLONE_NEWUTS
        | namespaces.CLONE_NEWIPC
        | namespaces.CLONE_NEWNET
        | namespaces.CLONE_NEWCGROUP
    )
    if state["spec"]["idmap"]:
        flags |= namespaces.CLONE_NEWUSER
    namespaces.setns(pidfd, flags)
    os.close(pidfd)


def _enter_stopped(rootfs: str, maps: dict[str, Any] | None, shift: bool, readonly: bool) -> None:
    tree = mount.open_tree(rootfs)
    if maps:
        ranges = {kind: [(r["inside"], r["outside"], r["length"]) for r in maps[kind]] for kind in ("uids", "gids")}
        userns_fd = idmap.user_namespace(ranges["uids"], ranges["gids"])
        if shift:
            mount.set_idmap(tree, userns_fd)
        namespaces.setns(userns_fd, namespaces.CLONE_NEWUSER)
        os.close(userns_fd)
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mount.set_propagation("/", mount.MS_REC | mount.MS_PRIVATE)
    # Private too: what is a copy of a shared mount, as systemd makes all, can be no root to pivot to.
    attributes = mount.ATTR_NODEV | mount.ATTR_NOSUID | (mount.ATTR_RDONLY if readonly else 0)
    mount.set_attributes(tree, add=attributes, propagation=mount.MS_PRIVATE)
    mount.attach_at(tree, "/proc")  # any directory will do, this one is everywhere
    os.fchdir(tree)
    mount.pivot_root(".", ".")
    mount.unmount(".")
    os.close(tree)
