"""One control group per container, on a unified (v2) host and on the hybrid layout (v1 controllers beside v2).

Both layouts have a v2 hierarchy; processes are started in it, frozen in it and killed through it. They differ in where
limits and usage live: `UnifiedCgroup` and `HybridCgroup`. A group of ours lies below the group `PARENT`.
"""

from __future__ import annotations

import os
import select
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping

from pylxc.kernel import bpf, procfs

PARENT = "pylxc"

DELEGATED = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
"""What the owner of a delegated subtree may write, beside the directory. See: cgroup(7)"""

ENTRY_LEAF = ".pylxc"
"""Where processes that enter a container live when its root group may have none."""

_V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")
_V1_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "blkio", "pids", "hugetlb")

LimitValues = Mapping[str, int | str | None]
"""The fields of `runtime.spec.Limits` by name."""


class Cgroup(ABC):
    """A container's group; `path` is its directory in the v2 hierarchy, `v1_paths` those of v1 controllers."""

    def __init__(self, root: str, name: str) -> None:
        self.name = name
        self.path = f"{root}/{PARENT}/{name}"
        self.v1_paths: tuple[str, ...] = ()
        self._root = root

    def create(self) -> None:
        """Make the group, empty and without limits; one that is there already (a leftover) is emptied first.

        Raises:
            OSError: the hierarchy cannot be written.
        """
        if os.path.isdir(self.path):
            self.kill()
            self.remove()
        os.makedirs(self.path)

    def delegate(self, uid: int, gid: int) -> None:
        """Let the container's root (host ids) make groups of its own below, without reaching its limits."""
        os.chown(self.path, uid, gid)
        for name in DELEGATED:
            os.chown(f"{self.path}/{name}", uid, gid)

    @abstractmethod
    def allow_devices(self, rules: Iterable[str]) -> None:
        """Deny every device but those of `rules` ("c 1:3 rwm", `*` for any number)."""

    @abstractmethod
    def change_devices(self, before: Collection[str], after: Collection[str]) -> None:
        """Have the rules `after` in place of `before`; what is in both can be used all the time."""

    def open_entrances(self) -> list[int]:
        """Return descriptors of the v1 groups' `tasks`; a process that writes `0` to them joins.

        A task that moves just itself takes no lock; moving a whole process from outside takes milliseconds.
        """
        return [os.open(f"{path}/tasks", os.O_WRONLY | os.O_CLOEXEC) for path in self.v1_paths]

    def kill(self, timeout: float = 10) -> None:
        """Kill every process in the group and below and wait until none is left.

        Raises:
            TimeoutError: some are still there after `timeout` seconds (unkillable in the kernel).
        """
        try:
            _write(f"{self.path}/cgroup.kill", "1")
        except FileNotFoundError:
            if not os.path.isdir(self.path):
                return
            # cgroup.kill is there from Linux 5.14 on.
            self._kill_each()
        self._await_event("populated", "0", timeout)

    def _kill_each(self) -> None:
        self.unfreeze()
        for directory, _, _ in os.walk(self.path):
            for pid in _read(f"{directory}/cgroup.procs").split():
                try:
                    os.kill(int(pid), 9)
                except ProcessLookupError:
                    continue

    def freeze(self, timeout: float = 10) -> None:
        """Stop every process of the group.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: some do not stop; all go on again.
            OSError: the group has gone.
        """
        _write(f"{self.path}/cgroup.freeze", "1")
        try:
            self._await_event("frozen", "1", timeout)
        except TimeoutError:
            self.unfreeze()
            raise

    def unfreeze(self) -> None:
        """Let the processes of the group go on."""
        _write(f"{self.path}/cgroup.freeze", "0")

    def is_frozen(self) -> bool:
        """Return whether the group was asked to freeze."""
        try:
            return _read(f"{self.path}/cgroup.freeze").strip() == "1"
        except OSError:
            return False

    def remove(self) -> None:
        """Remove the group and all groups below; it must be empty. One that is not there is no error."""
        for path in (self.path, *self.v1_paths):
            _remove_tree(path)

    @abstractmethod
    def set_limits(self, limits: LimitValues) -> None:
        """Write every limit; None lifts it.

        Raises:
            OSError: a limit that was asked for cannot be set (FileNotFoundError: no such controller here).
        """

    @abstractmethod
    def usage(self) -> dict[str, int]:
        """Return those known of `processes`, `cpu_ns`, `memory`, `memory_peak`, `swap`, `swap_peak` (bytes)."""

    def _await_event(self, name: str, value: str, timeout: float) -> None:
        """Wait until cgroup.events says `name value`."""
        deadline = time.monotonic() + timeout
        wanted = f"{name} {value}"
        with open(f"{self.path}/cgroup.events") as file:
            poll = select.poll()
            poll.register(file, select.POLLPRI)
            while wanted not in file.read().splitlines():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"Control group {self.name!r} is not yet {wanted!r}")
                poll.poll(left * 1000)
                file.seek(0)


class UnifiedCgroup(Cgroup):
    """The group on a host with cgroup v2 alone."""

    def create(self) -> None:
        """Make the group with all controllers that the host lets us have."""
        for directory in (self._root, f"{self._root}/{PARENT}"):
            os.makedirs(directory, exist_ok=True)
            enabled = _read(f"{directory}/cgroup.subtree_control").split()
            for controller in _V2_CONTROLLERS:
                if controller not in enabled:
                    _write_if_possible(f"{directory}/cgroup.subtree_control", f"+{controller}")
        super().create()

    def set_limits(self, limits: LimitValues) -> None:
        """See `Cgroup.set_limits`."""
        quota = limits["cpu_quota"]
        period = limits["cpu_period"] or 100000
        self._limit("memory.max", limits["memory"], "max")
        self._limit("memory.low", limits["memory_soft"], "0", optional=True)
        self._limit("memory.swap.max", limits["swap"], "max", optional=True)
        self._limit("pids.max", limits["processes"], "max")
        self._limit("cpuset.cpus", limits["cpus"], "\n")
        self._limit("cpu.max", None if quota is None else f"{quota} {period}", "max 100000")
        self._limit("cpu.weight", limits["cpu_weight"], "100", optional=True)
        self._limit("io.weight", limits["io_weight"], "default 100", optional=True)

    def allow_devices(self, rules: Iterable[str]) -> None:
        """See `Cgroup.allow_devices`."""
        try:
            bpf.restrict_devices(self.path, rules)
        except PermissionError:
            # In a container of its own a manager may load no program; nor can it reach what its host denies it.
            if not procfs.in_user_namespace():
                raise

    def change_devices(self, before: Collection[str], after: Collection[str]) -> None:
        """See `Cgroup.change_devices`."""
        del before
        self.allow_devices(after)

    def _limit(self, file: str, value: int | str | None, unlimited: str, *, optional: bool = False) -> None:
        _write_limit(f"{self.path}/{file}", value, unlimited, optional=optional)

    def usage(self) -> dict[str, int]:
        """See `Cgroup.usage`."""
        found = {"cpu_ns": _cpu_ns(self.path)}
        for key, file in (
            ("processes", "pids.current"),
            ("memory", "memory.current"),
            ("memory_peak", "memory.peak"),
            ("swap", "memory.swap.current"),
            ("swap_peak", "memory.swap.peak"),
        ):
            _note(found, key, f"{self.path}/{file}")
        return found


class HybridCgroup(Cgroup):
    """The group on a host whose controllers are (still) v1's; `controllers` is name -> mount point."""

    def __init__(self, root: str, name: str, controllers: Mapping[str, str]) -> None:
        super().__init__(root, name)
        self._controllers = {c: f"{mount}/{PARENT}/{name}" for c, mount in controllers.items() if c in _V1_CONTROLLERS}
        self.v1_paths = tuple(dict.fromkeys(self._controllers.values()))

    def create(self) -> None:
        """Make the group in the v2 hierarchy and in that of every controller."""
        super().create()
        for path in self.v1_paths:
            os.makedirs(path, exist_ok=True)
        if cpuset := self._controllers.get("cpuset"):
            # A new v1 cpuset has neither processors nor memory; nothing can join it before it has.
            parent = os.path.dirname(cpuset)
            for directory in (parent, cpuset):
                for file in ("cpuset.cpus", "cpuset.mems"):
                    if not _read(f"{directory}/{file}").strip():
                        _write(f"{directory}/{file}", _read(f"{os.path.dirname(directory)}/{file}").strip())

    def set_limits(self, limits: LimitValues) -> None:
        """See `Cgroup.set_limits`."""
        memory, swap = limits["memory"], limits["swap"]
        both = int(memory) + int(swap) if memory is not None and swap is not None else None
        # memory <= memory+swap must hold after every single write.
        _write_if_possible(self._file("memory", "memory.memsw.limit_in_bytes"), "-1")
        self._limit("memory", "memory.limit_in_bytes", memory, "-1")
        if both is not None:
            self._limit("memory", "memory.memsw.limit_in_bytes", both, "-1", optional=True)
        self._limit("memory", "memory.soft_limit_in_bytes", limits["memory_soft"], "-1", optional=True)
        self._limit("pids", "pids.max", limits["processes"], "max")
        if limits["cpus"] is not None:
            self._limit("cpuset", "cpuset.cpus", limits["cpus"], "")
        elif cpuset := self._controllers.get("cpuset"):
            _write(f"{cpuset}/cpuset.cpus", _read(f"{os.path.dirname(cpuset)}/cpuset.cpus").strip())
        if limits["cpu_quota"] is not None:
            self._limit("cpu", "cpu.cfs_period_us", limits["cpu_period"] or 100000, "100000")
        self._limit("cpu", "cpu.cfs_quota_us", limits["cpu_quota"], "-1")
        weight, io_weight = limits["cpu_weight"], limits["io_weight"]
        shares = None if weight is None else max(2, int(weight) * 1024 // 100)
        self._limit("cpu", "cpu.shares", shares, "1024", optional=True)
        blkio = None if io_weight is None else min(1000, max(10, int(io_weight) * 5))
        for file in ("blkio.weight", "blkio.bfq.weight"):
            self._limit("blkio", file, blkio, "500", optional=True)

    def allow_devices(self, rules: Iterable[str]) -> None:
        """See `Cgroup.allow_devices`, and the kernel's cgroup-v1/devices.rst."""
        if devices := self._controllers.get("devices"):
            _write(f"{devices}/devices.deny", "a")
            for rule in rules:
                _write(f"{devices}/devices.allow", rule)

    def change_devices(self, before: Collection[str], after: Collection[str]) -> None:
        """See `Cgroup.change_devices`."""
        if devices := self._controllers.get("devices"):
            for rule in after:
                if rule not in before:
                    _write(f"{devices}/devices.allow", rule)
            for rule in before:
                if rule not in after:
                    _write(f"{devices}/devices.deny", rule)

    def _file(self, controller: str, file: str) -> str:
        return f"{self._controllers.get(controller, f'/sys/fs/cgroup/{controller} (missing)')}/{file}"

    def _limit(
        self, controller: str, file: str, value: int | str | None, unlimited: str, *, optional: bool = False
    ) -> None:
        _write_limit(self._file(controller, file), value, unlimited, optional=optional)

    def usage(self) -> dict[str, int]:
        """See `Cgroup.usage`."""
        found = {"cpu_ns": _cpu_ns(self.path)}
        for key, controller, file in (
            ("processes", "pids", "pids.current"),
            ("memory", "memory", "memory.usage_in_bytes"),
            ("memory_peak", "memory", "memory.max_usage_in_bytes"),
            ("swap", "memory", "memory.memsw.usage_in_bytes"),
            ("swap_peak", "memory", "memory.memsw.max_usage_in_bytes"),
        ):
            _note(found, key, self._file(controller, file))
        for swap, memory in (("swap", "memory"), ("swap_peak", "memory_peak")):
            if swap in found and memory in found:
                found[swap] = max(0, found[swap] - found[memory])
        return found


def open_cgroup(name: str) -> Cgroup:
    """Return the group `name` in the layout that this host has; nothing is made yet.

    Raises:
        FileNotFoundError: no cgroup v2 hierarchy is mounted.
    """
    unified, controllers = _layout()
    if "memory" in controllers or "pids" in controllers:
        return HybridCgroup(unified, name, controllers)
    return UnifiedCgroup(unified, name)


def open_for_entry(path: str) -> int:
    """Return a descriptor of a v2 group that a process can be born in so that it belongs to the group `path`.

    A group that distributes controllers to groups below (systemd in the container does that) may have no process of its
    own; then it is a leaf of it, owned as the group is.

    Raises:
        FileNotFoundError: the group has gone.
    """
    if _read(f"{path}/cgroup.subtree_control").strip():
        owner = os.stat(path)
        path = f"{path}/{ENTRY_LEAF}"
        try:
            os.mkdir(path)
        except FileExistsError:
            pass
        else:
            for name in ("", *DELEGATED):
                os.chown(f"{path}/{name}", owner.st_uid, owner.st_gid)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


_found: list[tuple[str, dict[str, str]]] = []


def _layout() -> tuple[str, dict[str, str]]:
    """Return the mount point of cgroup v2 and those of the v1 controllers; read once per process."""
    if not _found:
        unified = ""
        controllers: dict[str, str] = {}
        for mount in procfs.mounts():
            if mount.fstype == "cgroup2" and not unified:
                unified = mount.target
            elif mount.fstype == "cgroup":
                controllers.update(dict.fromkeys(mount.super_options, mount.target))
        if not unified:
            raise FileNotFoundError(2, "No cgroup v2 hierarchy is mounted", "/sys/fs/cgroup")
        _found.append((unified, controllers))
    return _found[0]


def _remove_tree(path: str) -> None:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError:
        # Groups of the container's own making lie below; a directory of kernfs is removed with its files.
        _remove_below(path)
        os.rmdir(path)


def _remove_below(path: str) -> None:
    """Remove the groups below one, however deep: a container can nest them until their paths are longer than PATH_MAX.

    So one step at a time, with one descriptor and no recursion.
    """
    here = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    names: list[str] = []
    try:
        while True:
            down = next((name for name in os.listdir(here) if _is_group(name, here)), None)
            if down is not None:
                names.append(down)
            elif not names:
                return
            there = os.open(down or "..", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = there
            if down is None:
                os.rmdir(names.pop(), dir_fd=here)
    finally:
        os.close(here)


def _is_group(name: str, directory: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def _cpu_ns(path: str) -> int:
    for line in _read(f"{path}/cpu.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "usage_usec":
            return int(value) * 1000
    return 0


def _note(found: dict[str, int], key: str, path: str) -> None:
    try:
        found[key] = int(_read(path))
    except OSError:
        return


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"writing {text!r}: {os.strerror(error.errno or 0)}", path) from None
    finally:
        os.close(fd)


def _write_limit(path: str, value: int | str | None, unlimited: str, *, optional: bool) -> None:
    # A limit that is not asked for need not be there to be lifted.
    if value is None or optional:
        _write_if_possible(path, unlimited if value is None else str(value))
    else:
        _write(path, str(value))


def _write_if_possible(path: str, text: str) -> None:
    """Write where the file may be missing or the kernel may refuse: an optional controller, a limit to lift."""
    try:
        _write(path, text)
    except OSError:
        return


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
