"""The container's tree of mounts: prepared as descriptors by the monitor, put together inside by PID 1-to-be.

`prepare` runs in the monitor, with the host's root: it opens what lies behind directories that the container's root
cannot pass, and maps ids. `enter` runs in the container's own namespaces: a mount attached from outside would be
locked there. Every target is resolved with the container's root as root, so a link in a hostile tree leads nowhere
else.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from fcntl import ioctl

from pylxc.errors import BadRequest
from pylxc.kernel import mount, namespaces
from pylxc.kernel.fds import close
from pylxc.kernel.openat2 import RESOLVE_BENEATH, make_path, openat2
from pylxc.runtime import nodes, overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.runtime.spec import ContainerSpec, Mount

_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431

_PROTECTED = mount.ATTR_NOSUID | mount.ATTR_NODEV | mount.ATTR_NOEXEC
_HOST_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse", "net/tun")
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
# systemd wants file systems here that a user namespace may not mount; with anything mounted it is content.
_ALREADY_MOUNTED = ("fs/fuse/connections", "kernel/config", "kernel/debug", "kernel/tracing")

_ATTRIBUTES = {
    "ro": mount.ATTR_RDONLY,
    "nosuid": mount.ATTR_NOSUID,
    "nodev": mount.ATTR_NODEV,
    "noexec": mount.ATTR_NOEXEC,
    "noatime": mount.ATTR_NOATIME,
    "nodiratime": mount.ATTR_NODIRATIME,
    "strictatime": mount.ATTR_STRICTATIME,
    "nosymfollow": mount.ATTR_NOSYMFOLLOW,
}
_PROPAGATION = {
    "private": (mount.MS_PRIVATE, 0),
    "slave": (mount.MS_SLAVE, 0),
    "shared": (mount.MS_SHARED, mount.MS_SHARED),
    "unbindable": (mount.MS_PRIVATE, mount.MS_UNBINDABLE),
}
_PROPAGATION |= {f"r{word}": flags for word, flags in _PROPAGATION.items()}
"""How a bind mount shares mounts with the host, and what it is set to once it is in its place."""
_NO_ATTRIBUTE = {*_PROPAGATION, "", "rw", "bind", "rbind", "defaults", "relatime", "suid", "dev", "exec"}

MOUNT_WORDS = frozenset(_ATTRIBUTES) | frozenset(_NO_ATTRIBUTE)
"""Options that are a matter of the mount; all others are the file system's."""

_STAGE = "mounts"
_OVERLAY = "overlay"

Trees = dict[str, int]
"""Detached mounts by name: "rootfs", "mount:N", "device:N" with N the position in the spec."""


def prepare(spec: ContainerSpec, userns_fd: int) -> tuple[Trees, list[str]]:
    """Open everything that comes from the host as detached mounts (close-on-exec, the caller's to close).

    A mount that is to stay read-only (nosuid, ...) in the hands of the container's root is not handed over but staged
    below the run directory (see `make_stage`): copied from there with the mount namespace it is locked.

    Args:
        spec: the container.
        userns_fd: its user namespace, whose maps are set; -1 for a privileged container.

    Returns:
        The trees, and the names of the staged ones.

    Raises:
        OSError: a source is missing or its file system cannot be mounted idmapped.
    """
    trees: Trees = {}
    staged: list[str] = []
    try:
        trees["rootfs"] = open_source(spec.rootfs)
        if spec.shift_rootfs and userns_fd >= 0:
            _shift(trees["rootfs"], userns_fd, spec.rootfs)
        for index, entry in enumerate(spec.mounts):
            if entry.fstype:
                continue
            try:
                tree = open_bind(entry, userns_fd)
            except OSError:
                if not entry.optional:
                    raise
                continue
            if userns_fd >= 0 and _is_staged(entry):
                _stage(spec, f"mount:{index}", tree)
                staged.append(f"mount:{index}")
            else:
                trees[f"mount:{index}"] = tree
        for index, device in enumerate(spec.devices):
            trees[f"device:{index}"] = nodes.open_node(f"{_stage_of(spec)}/device:{index}", device, spec.idmap)
    except BaseException:
        close(trees.values())
        raise
    return trees, staged


def needs_stage(spec: ContainerSpec) -> bool:
    """Return whether something is to be staged: nodes, or mounts of an unprivileged container with attributes."""
    return bool(spec.devices) or (spec.idmap is not None and any(_is_staged(entry) for entry in spec.mounts))


def make_stage(run_dir: str) -> None:
    """Give this process a mount namespace of its own, with a place for staged mounts that nobody else sees.

    PID 1-to-be is forked after that, so that its own mount namespace is a copy of this one.
    """
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mount.set_propagation("/", mount.MS_REC | mount.MS_PRIVATE)
    stage = f"{run_dir}/{_STAGE}"
    os.mkdir(stage, 0o700)
    tmpfs = mount.new("tmpfs", (("mode", "0700"),))
    mount.attach_at(tmpfs, stage)
    os.close(tmpfs)


def remove_stage(run_dir: str) -> None:
    """Undo `make_stage`, if it was called."""
    stage = f"{run_dir}/{_STAGE}"
    if os.path.isdir(stage):
        mount.unmount(stage)
        os.rmdir(stage)


def _stage_of(spec: ContainerSpec) -> str:
    return f"{spec.run_dir}/{_STAGE}"


def take_staged(spec: ContainerSpec, names: list[str]) -> Trees:
    """Return the staged mounts, in the container's own copy of the mount namespace that they were staged in."""
    return {name: mount.open_tree(f"{_stage_of(spec)}/{name}", recursive=True) for name in names}


def _is_staged(entry: Mount) -> bool:
    return not entry.fstype and bool(split_options(entry.options)[0])


def _stage(spec: ContainerSpec, name: str, tree: int) -> None:
    target = f"{_stage_of(spec)}/{name}"
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.mkdir(target, 0o700)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    mount.attach_at(tree, target)
    os.close(tree)


def open_bind(entry: Mount, userns_fd: int) -> int:
    """Return a bind mount as it is to be attached (the caller's to close); see `prepare` for the errors."""
    recursive = "rbind" in entry.options
    propagation, _ = _propagation(entry)
    if propagation == mount.MS_SHARED:
        # A guest that is not the host's root mounts nothing on the host, just as in a copied mount namespace.
        propagation = mount.MS_SLAVE if userns_fd >= 0 else 0
    tree = open_source(entry.source, recursive=recursive, propagation=propagation, within=entry.within)
    try:
        if entry.shift and userns_fd >= 0:
            _shift(tree, userns_fd, entry.source, recursive=recursive)
        add, _ = split_options(entry.options)
        if add:
            clear = mount.ATTR__ATIME if add & (mount.ATTR_NOATIME | mount.ATTR_STRICTATIME) else 0
            mount.set_attributes(tree, add=add, clear=clear, recursive=recursive)
    except BaseException:
        os.close(tree)
        raise
    return tree


def adjust(entry: Mount, target_fd: int) -> None:
    """Give the file system that `target_fd` (may be O_PATH) is the root of the options that a mount has.

    Raises:
        OSError: it refuses one; the path is the mount's target.
    """
    _, options = split_options(entry.options)
    try:
        mount.reconfigure("", options, dir_fd=target_fd)
    except OSError as error:
        raise OSError(error.errno, f"it does not take {','.join(entry.options)}", entry.target) from error


def open_source(path: str, *, recursive: bool = False, propagation: int = mount.MS_PRIVATE, within: str = "") -> int:
    """Return a detached copy of a mount of the host that shares nothing with it, unless `propagation` says so.

    A plain copy of a shared mount (systemd shares all) is its peer: what is mounted there appears on the host.

    Args:
        path: what is mounted.
        recursive: with the mounts below.
        propagation: see `mount.set_attributes`.
        within: the directory that links on the way may not lead out of, "" for anywhere; EXDEV tells of one that does.
    """
    tree = _open_within(path, within, recursive) if within else mount.open_tree(path, recursive=recursive)
    if propagation:
        mount.set_attributes(tree, propagation=propagation, recursive=recursive)
    return tree


def _open_within(path: str, within: str, recursive: bool) -> int:
    held = [os.open(within, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        held.append(openat2(held[0], os.path.relpath(path, within), os.O_PATH, resolve=RESOLVE_BENEATH))
        return mount.open_tree("", dir_fd=held[1], recursive=recursive)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise BadRequest(f"Disk source path {path!r} leads out of {within!r}, where it has to be") from error
    finally:
        close(held)


def put(root_fd: int, entry: Mount, tree: int) -> None:
    """Mount something in its place inside; for the container's root, in its namespaces.

    Args:
        root_fd: the container's root directory.
        entry: what.
        tree: from `open_bind`, is closed; -1 for a new file system.

    Raises:
        OSError: the target cannot be made, or the kernel does not have the file system or does not let a user
            namespace mount it.
    """
    target = make_path(root_fd, entry.target, entry.create)
    opened = [target]
    try:
        if entry.fstype == _OVERLAY:
            attributes, options = split_options(entry.options)
            overlay.put(target, entry.target, options, attributes)
            return
        if entry.fstype:
            tree = _new_mount(entry)
        opened.append(tree)
        _, propagation = _propagation(entry)
        mount.attach(tree, target, path=entry.target)
        if propagation and not entry.fstype:
            mount.set_attributes(tree, propagation=propagation, recursive="rbind" in entry.options)
    finally:
        close(opened)


def _new_mount(entry: Mount) -> int:
    attributes, options = split_options(entry.options)
    try:
        return mount.new(entry.fstype, options, attributes=attributes, source=entry.source)
    except OSError as error:
        text = f"cannot mount {entry.fstype} with {','.join(entry.options)}: {os.strerror(error.errno or 0)}"
        raise OSError(error.errno, text, entry.target) from error


def targets(entry: Mount) -> tuple[str, ...]:
    """Return the paths inside that `put` mounts on, in order."""
    return (entry.target,) * (2 if entry.fstype == _OVERLAY else 1)


def _propagation(entry: Mount) -> tuple[int, int]:
    return next((_PROPAGATION[word] for word in entry.options if word in _PROPAGATION), _PROPAGATION["private"])


def _shift(tree: int, userns_fd: int, path: str, *, recursive: bool = False) -> None:
    try:
        mount.set_idmap(tree, userns_fd, recursive=recursive)
    except OSError as error:
        raise BadRequest(f"The file system of {path!r} cannot be mounted with shifted ids") from error


def split_options(options: tuple[str, ...]) -> tuple[int, tuple[tuple[str, str], ...]]:
    """Return the mount attributes among mount(8)'s words, and the rest as options of the file system."""
    attributes = 0
    rest = []
    for word in options:
        if word in _ATTRIBUTES:
            attributes |= _ATTRIBUTES[word]
        elif word not in _NO_ATTRIBUTE:
            name, _, value = word.partition("=")
            rest.append((name, value))
    return attributes, tuple(rest)


class Builder:
    """Puts the tree together, in the container's namespaces. Order: `open_host`, `pivot`, `fill`."""

    def __init__(self, spec: ContainerSpec, trees: Trees) -> None:
        self._spec = spec
        self._trees = trees
        self._root_fd = -1
        self.console_fd = -1
        """The console's slave, for PID 1's standard streams."""

    def open_host(self) -> None:
        """Make what needs the host's tree in view.

        The kernel lets a user namespace mount proc and sysfs only while it sees whole ones elsewhere, that is before
        the host's are out of sight.
        """
        # First of all: whatever is mounted or copied from here on is nobody's peer.
        mount.set_propagation("/", mount.MS_REC | mount.MS_PRIVATE)
        self._proc = mount.new("proc", attributes=_PROTECTED)
        # Read-only, but for its network part: so systemd knows that there is no udev here and waits for none.
        self._sys = mount.new("sysfs", attributes=_PROTECTED | mount.ATTR_RDONLY)
        self._cgroup = mount.new("cgroup2", attributes=_PROTECTED)
        self._whole = {}
        if self._spec.nesting:
            self._whole = {name: mount.new(kind, attributes=_PROTECTED) for name, kind in _WHOLE}
        self._devices = {}
        for name in _HOST_DEVICES:
            path = f"/dev/{name}"
            if os.path.exists(path) and stat.S_ISCHR(os.stat(path).st_mode):
                self._devices[name] = mount.open_tree(path)

    def pivot(self) -> None:
        """Make the container's tree the root and let go of the host's."""
        root = self._trees.pop("rootfs")
        # On top of the host's root: the one directory that is always there and can be reached.
        mount.attach_at(root, "/")
        os.fchdir(root)
        mount.pivot_root(".", ".")
        mount.unmount(".")
        os.chdir("/")
        os.close(root)
        self._root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def fill(self) -> int:
        """Mount /dev, /proc, /sys and what the spec names; return the console's pty master (the caller's)."""
        self._attach(self._proc, "/proc", "dir")
        self._attach(self._sys, "/sys", "dir")
        master = self._fill_dev()
        self._fill_sys()
        for index, entry in enumerate(self._spec.mounts):
            self._mount(entry, self._trees.pop(f"mount:{index}", -1))
        for index, device in enumerate(self._spec.devices):
            self._attach(self._trees.pop(f"device:{index}"), device.path, "file", done=True)
        return master

    def protect_proc(self) -> None:
        """Take the kernel's switches from a container that has no user namespace of its own."""
        for path in ("sys", "sysrq-trigger"):
            self._rebind(self._proc, path, add=mount.ATTR_RDONLY)
        self._rebind(self._proc, "sys/net", clear=mount.ATTR_RDONLY)

    def write_sysctl(self, name: str, value: str) -> None:
        """Set a sysctl of the container's namespaces (`net.ipv4.ip_forward`, or with slashes)."""
        path = name if "/" in name else name.replace(".", "/")
        target = make_path(self._proc, f"sys/{path}", "")
        try:
            with open(f"/proc/self/fd/{target}", "w") as file:
                file.write(value)
        finally:
            os.close(target)

    def _fill_dev(self) -> int:
        dev = mount.new("tmpfs", (("mode", "0755"), ("size", "512k")), attributes=mount.ATTR_NOSUID, source="none")
        self._attach(dev, "/dev", "dir")
        for name in ("pts", "shm", "mqueue", "net"):
            os.mkdir(name, 0o755, dir_fd=dev)
        for name, target in _LINKS.items():
            os.symlink(target, name, dir_fd=dev)
        for name, tree in self._devices.items():
            self._attach_below(dev, tree, name)
        shm = mount.new("tmpfs", (("mode", "1777"),), attributes=mount.ATTR_NOSUID | mount.ATTR_NODEV, source="tmpfs")
        self._attach_below(dev, shm, "shm")
        self._attach_below(dev, mount.new("mqueue", attributes=_PROTECTED), "mqueue")
        options = (("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5"), ("max", "1024"))
        pts = mount.new("devpts", options, attributes=mount.ATTR_NOSUID | mount.ATTR_NOEXEC)
        pts_dir = make_path(dev, "pts", "")
        mount.attach(pts, pts_dir)
        os.close(pts_dir)
        master = self._open_console(dev, pts)
        if self._whole:
            # A nested container may mount its own proc and sysfs only if a whole one of each is in view.
            os.mkdir(".lxc", 0o100, dir_fd=dev)
            for name, tree in self._whole.items():
                os.mkdir(f".lxc/{name}", 0o100, dir_fd=dev)
                self._attach_below(dev, tree, f".lxc/{name}")
        close([pts, dev])
        return master

    def _open_console(self, dev: int, pts: int) -> int:
        """Make the console's pty in the container's own devpts and mount its slave on /dev/console."""
        master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=pts)
        ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        number = struct.unpack("i", ioctl(master, _TIOCGPTN, bytes(4)))[0]
        self.console_fd = os.open(str(number), os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=pts)
        os.fchmod(self.console_fd, 0o620)
        self._attach_below(dev, mount.open_tree(str(number), dir_fd=pts), "console")
        return master

    def _fill_sys(self) -> None:
        self._rebind(self._sys, "devices/virtual/net", clear=mount.ATTR_RDONLY)
        for path in _ALREADY_MOUNTED:
            self._rebind(self._sys, path)
        self._attach_below(self._sys, self._cgroup, "fs/cgroup")

    def _mount(self, entry: Mount, tree: int) -> None:
        if not entry.fstype and tree < 0:
            return
        try:
            put(self._root_fd, entry, tree)
        except OSError:
            if not entry.optional:
                raise

    def _attach(self, tree: int, path: str, create: str, *, done: bool = False) -> None:
        """Attach at a path inside the container; `done` closes the descriptor."""
        target = make_path(self._root_fd, path, create)
        try:
            mount.attach(tree, target, path=path)
        finally:
            os.close(target)
            if done:
                os.close(tree)

    def _attach_below(self, directory: int, tree: int, name: str) -> None:
        """Attach on `name` below a directory of ours (made as a file when missing), close the descriptor."""
        target = make_path(directory, name, "file")
        mount.attach(tree, target, path=name)
        close([target, tree])

    def _rebind(self, directory: int, path: str, *, add: int = 0, clear: int = 0) -> None:
        """Mount a part of a mount of ours on itself, with other attributes; no such part is no error."""
        try:
            tree = mount.open_tree(path, dir_fd=directory)
        except FileNotFoundError:
            return
        mount.set_attributes(tree, add=add, clear=clear)
        self._attach_below(directory, tree, path)


_WHOLE = (("proc", "proc"), ("sys", "sysfs"))
