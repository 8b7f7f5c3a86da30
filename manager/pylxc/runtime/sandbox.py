"""A cell for programs that work on untrusted data: no host, no network, one directory to write to.

The caller stays outside as root, the cell is a child in user, mount, pid, network, ipc, uts and cgroup namespaces of
its own. It sees the host's programs read-only and the files and the directory that it is given, whose owners on the
disk are the ids inside: nothing that it makes can belong to anybody of the host.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from collections.abc import Callable, Sequence

from pylxc.kernel import caps, fds, idmap, mount, namespaces

TARGET = "/target"
_NAMESPACES = (
    namespaces.CLONE_NEWUSER
    | namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWPID
    | namespaces.CLONE_NEWNET
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWCGROUP
)
_PROGRAMS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_KEPT_CAPABILITIES = ("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "mknod", "setfcap")
_LIMITS = ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 1024), (resource.RLIMIT_AS, 4 << 30))


def image_path(index: int) -> str:
    """Return where the cell sees the file number `index` of those it is given."""
    return f"/image{index}"


class Cell:
    """The cell's end that its caller holds.

    Attributes:
        pid: of the cell's first process; when it ends, everything in the cell is killed.
    """

    def __init__(
        self,
        uids: Sequence[idmap.Range],
        gids: Sequence[idmap.Range],
        files: Sequence[int],
        target_fd: int | None,
        keep: Sequence[int],
        run: Callable[[], int],
        target_map: tuple[Sequence[idmap.Range], Sequence[idmap.Range]] | None = None,
    ) -> None:
        """Start a cell; the caller must be single-threaded root.

        Args:
            uids: user ids of the cell, as (inside, outside, count).
            gids: group ids, likewise.
            files: files that it may read, at `image_path`; everybody must have the right to.
            target_fd: directory that it may write to, at `TARGET`; None for nowhere.
            keep: descriptors that it inherits.
            run: what it does; what that returns becomes the exit status.
            target_map: user and group ids of the directory, as (on the disk, outside, count); None for the cell's own.

        Raises:
            OSError: EINVAL from mount_setattr when the file system cannot map owners.
        """
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid, pidfd = namespaces.clone(_NAMESPACES)
        if self.pid == 0:
            _live(keep, there, len(files), run)
        os.close(pidfd)
        there.close()
        try:
            with here:
                idmap.write_maps(self.pid, uids, gids)
                own = f"/proc/{self.pid}/ns/user"
                owners_fd = idmap.user_namespace(*target_map) if target_map else os.open(own, os.O_RDONLY)
                _hand_over(here, owners_fd, files, target_fd)
        except OSError:
            self.kill()
            raise

    def written(self) -> int:
        """Return the most bytes that the cell's first process, or a program of it, has written so far."""
        found = [0]
        try:
            with open(f"/proc/{self.pid}/task/{self.pid}/children", encoding="ascii") as file:
                children = file.read().split()
        except OSError:
            return 0
        for process in (self.pid, *children):
            try:
                with open(f"/proc/{process}/io", encoding="ascii") as file:
                    found += [int(line.split()[1]) for line in file if line.startswith("wchar:")]
            except OSError:
                continue
        return max(found)

    def wait(self) -> int:
        """Wait for the end and return the exit status, negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        """End everything in the cell and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()


def _hand_over(sock: socket.socket, owners_fd: int, files: Sequence[int], target_fd: int | None) -> None:
    # Mounts can be copied only from the host's mount namespace, and mapped only by one who is root outside.
    trees = []
    try:
        for file in files:
            trees.append(mount.open_tree("", dir_fd=file))
            mount.set_attributes(trees[-1], add=mount.ATTR_RDONLY | mount.ATTR_NOSUID | mount.ATTR_NODEV)
        if target_fd is not None:
            trees.append(mount.open_tree("", dir_fd=target_fd))
            mount.set_attributes(trees[-1], add=mount.ATTR_NOSUID | mount.ATTR_NODEV | mount.ATTR_NOEXEC)
            mount.set_idmap(trees[-1], owners_fd)
        fds.send(sock, json.dumps({"target": target_fd is not None}).encode(), trees)
    finally:
        fds.close([owners_fd, *trees])


def _live(keep: Sequence[int], sock: socket.socket, files: int, run: Callable[[], int]) -> None:
    status = 125
    try:
        caps.set_parent_death_signal(signal.SIGKILL)
        message, trees = fds.receive(sock, 4096, files + 1)
        if message:
            fds.close_all_but([0, 1, 2, *keep, *trees, sock.fileno()])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            os.setgroups([])
            caps.set_parent_death_signal(signal.SIGKILL)  # the change of ids has cleared it
            _move_in(trees[:files], trees[files] if json.loads(message)["target"] else None)
            fds.close_all_but([0, 1, 2, *keep])
            _give_up()
            status = run()
    except Exception as error:  # noqa: BLE001 - whatever it is, this process ends here and says why
        os.write(2, f"sandbox: {error}\n".encode(errors="replace"))
    finally:
        os._exit(status)


def _move_in(files: Sequence[int], target: int | None) -> None:
    mount.set_propagation("/", mount.MS_REC | mount.MS_PRIVATE)
    root = mount.new("tmpfs", (("size", "64k"), ("mode", "0755")), attributes=mount.ATTR_NOSUID | mount.ATTR_NODEV)
    mount.attach_at(root, "/tmp")  # noqa: S108 - any directory will do: it is on top of nothing but this cell's /tmp
    os.fchdir(root)
    for name in _PROGRAMS:
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), name)
        elif os.path.isdir(f"/{name}"):
            tree = mount.open_tree(f"/{name}", recursive=True)
            readonly = mount.ATTR_RDONLY | mount.ATTR_NOSUID | mount.ATTR_NODEV
            mount.set_attributes(tree, add=readonly, recursive=True)
            os.mkdir(name)
            mount.attach_at(tree, name)
    for index, file in enumerate(files):
        os.close(os.open(image_path(index)[1:], os.O_CREAT | os.O_WRONLY, 0o400))
        mount.attach_at(file, image_path(index)[1:])
    os.mkdir(TARGET[1:])
    if target is not None:
        mount.attach_at(target, TARGET[1:])
    mount.pivot_root(".", ".")
    mount.unmount(".")
    mount.set_attributes(root, add=mount.ATTR_RDONLY)
    os.chdir(TARGET)


def _give_up() -> None:
    for limit, value in _LIMITS:
        hard = resource.getrlimit(limit)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (bound, bound))
    os.umask(0)
    caps.drop(tuple(name for name in caps.NAMES if name not in _KEPT_CAPABILITIES))
    caps.set_no_new_privileges()
