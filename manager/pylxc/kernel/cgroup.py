"""One control group per container, on a unified (v2) host and on the hybrid layout (v1 controllers beside v2).

Both layouts have a v2 hierarchy; processes are started in it, frozen in it and killed through it. They differ in where
limits and usage live: `UnifiedCgroup` and `HybridCgroup`. A group of ours lies below the group `PARENT`.
"""

from __future__ import annotations

import os
import select
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping

from pylxc.kernel import bpf, cgroup_limits, cgroup_tree, memory_events, procfs
from pylxc.kernel.cgroup_limits import Setting
from pylxc.kernel.memory_events import EventOomWatch, FileOomWatch, OomWatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.kernel.cgroup_limits import LimitValues

PARENT = "pylxc"

DELEGATED = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
"""What the owner of a delegated subtree may write, beside the directory. See: cgroup(7)"""

ENTRY_LEAF = ".pylxc"
"""Where processes that enter a container live when its root group may have none."""

_V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")
_GATHERINGS = 5
"""How often processes are looked for that have been forked while others were moved."""

_V1_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "blkio", "pids", "hugetlb")

Lacking = dict[str, str]
"""Limits that a host does not have, by the configuration key that asks for them: what is missing, in words."""


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
        self._enable_controllers()
        os.mkdir(self.path)

    def _enable_controllers(self) -> None:
        """Have the v2 group with all controllers that the host lets us have there."""
        for directory in (self._root, os.path.dirname(self.path)):
            os.makedirs(directory, exist_ok=True)
            offered = procfs.read(f"{directory}/cgroup.controllers").split()
            enabled = procfs.read(f"{directory}/cgroup.subtree_control").split()
            for controller in _V2_CONTROLLERS:
                if controller in offered and controller not in enabled:
                    _write_if_possible(f"{directory}/cgroup.subtree_control", f"+{controller}")

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
        for pid in self._processes():
            try:
                os.kill(int(pid), 9)
            except ProcessLookupError:
                continue

    def _processes(self) -> Iterator[str]:
        for directory, _, _ in os.walk(self.path):
            try:
                yield from procfs.read(f"{directory}/cgroup.procs").split()
            except OSError:  # it has gone; or it is a threaded one, whose processes are listed above it
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
            return procfs.read(f"{self.path}/cgroup.freeze").strip() == "1"
        except OSError:
            return False

    def remove(self) -> None:
        """Remove the group and all groups below; it must be empty. One that is not there is no error."""
        for path in (self.path, *self.v1_paths):
            cgroup_tree.remove(path)

    def set_limits(self, limits: LimitValues) -> Lacking:
        """Write every limit; None lifts it. Return those that were asked for and that this host does not have.

        Raises:
            OSError: the kernel refuses the value of one; the text names its key.
        """
        lacking: Lacking = {}
        for setting in self._settings(limits):
            directory = self.directory(setting.controller)
            there = [self._apply(setting, f"{directory}/{file}") for file in setting.files]
            if setting.is_limit and not any(there):
                what = f"cgroup controller {setting.controller!r}"
                has_it = self._has(setting.controller)
                lacking[setting.key] = f"the {what} has no {setting.files[0]}" if has_it else f"there is no {what}"
        return lacking

    def set_cpus(self, cpus: str | None) -> None:
        """Let the group run on the CPUs of a cpuset list, on all when None; raises OSError."""
        for setting in self._settings({**cgroup_limits.NONE, "cpus": cpus}):
            if setting.controller == "cpuset":
                self._apply(setting, f"{self.directory('cpuset')}/{setting.files[0]}")

    def cpus(self) -> str:
        """Return the cpuset list of the group, empty where it has none of its own."""
        return _read_if_there(f"{self.directory('cpuset')}/cpuset.cpus").strip()

    def _apply(self, setting: Setting, path: str) -> bool:
        """Write a setting; return whether there is such a file."""
        try:
            _write(path, setting.text)
        except FileNotFoundError:
            return False
        except OSError as error:
            # A limit that is lifted, or that was not there, is no harm.
            if setting.is_limit:
                text = f"{setting.key}: {setting.text!r}: {os.strerror(error.errno or 0)}"
                raise OSError(error.errno, text, path) from None
        return True

    @abstractmethod
    def _settings(self, limits: LimitValues) -> Iterator[Setting]:
        """Yield what is to be written for limits."""

    def _has(self, controller: str) -> bool:
        """Return whether the group is one of a controller's."""
        return controller in _read_if_there(f"{self.path}/cgroup.controllers").split()

    @abstractmethod
    def directory(self, controller: str) -> str:
        """Return the group's directory with the files of a controller, whether it is there or not."""

    @abstractmethod
    def watch_oom(self) -> OomWatch:
        """Return what tells of processes that are killed for want of memory.

        Raises:
            OSError: the group has gone, or there is no memory controller.
        """

    @abstractmethod
    def oom_kills(self) -> int:
        """Return how many processes were killed for want of memory; 0 where nobody counts."""

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

    def _settings(self, limits: LimitValues) -> Iterator[Setting]:
        throttled = {file: _read_if_there(f"{self.path}/{file}") for file in cgroup_limits.throttle_files(unified=True)}
        return cgroup_limits.unified(limits, throttled)

    def directory(self, controller: str) -> str:
        """See `Cgroup.directory`."""
        return self.path

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

    def watch_oom(self) -> OomWatch:
        """See `Cgroup.watch_oom`."""
        return FileOomWatch(f"{self.path}/memory.events")

    def oom_kills(self) -> int:
        """See `Cgroup.oom_kills`."""
        return memory_events.count(_read_if_there(f"{self.path}/memory.events"))

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
                    if not procfs.read(f"{directory}/{file}").strip():
                        _write(f"{directory}/{file}", procfs.read(f"{os.path.dirname(directory)}/{file}").strip())

    def _settings(self, limits: LimitValues) -> Iterator[Setting]:
        files = cgroup_limits.throttle_files(unified=False)
        throttled = {file: _read_if_there(f"{self.directory('blkio')}/{file}") for file in files}
        cpuset = os.path.dirname(self.directory("cpuset"))
        defaults = {"cpus": _read_if_there(f"{cpuset}/cpuset.cpus").strip(), "swappiness": _swappiness()}
        yield from cgroup_limits.hybrid(limits, throttled, defaults)
        if "hugetlb" in self._controllers:
            yield from cgroup_limits.hugepages(limits, "hugetlb.{}.limit_in_bytes", "-1")
        else:
            yield from cgroup_limits.hugepages(limits, "hugetlb.{}.max", "max")

    def set_cpus(self, cpus: str | None) -> None:
        """See `Cgroup.set_cpus`."""
        self._widen_cpuset()
        super().set_cpus(cpus)
        if cpuset := self._controllers.get("cpuset"):
            self._gather(f"{cpuset}/cgroup.procs")

    def _gather(self, procs: str) -> None:
        """Bring the processes back: v1 moves those of a group whose last CPU goes offline to the group above."""
        for _ in range(_GATHERINGS):
            if not (astray := set(self._processes()) - set(procfs.read(procs).split())):
                return
            for pid in astray:
                _write_if_possible(procs, pid)

    def _widen_cpuset(self) -> None:
        """Give our parent all CPUs: v1 takes those that go offline from every group, and gives none back."""
        if cpuset := self._controllers.get("cpuset"):
            parent = os.path.dirname(cpuset)
            has, whole = (procfs.read(f"{each}/cpuset.cpus").strip() for each in (parent, os.path.dirname(parent)))
            if has != whole:
                _write(f"{parent}/cpuset.cpus", whole)

    def directory(self, controller: str) -> str:
        """See `Cgroup.directory`."""
        # What no v1 hierarchy has is left to the v2 one.
        return self._controllers.get(controller, self.path)

    def _has(self, controller: str) -> bool:
        return controller in self._controllers or super()._has(controller)

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

    def watch_oom(self) -> OomWatch:
        """See `Cgroup.watch_oom`."""
        return EventOomWatch(self.directory("memory"))

    def oom_kills(self) -> int:
        """See `Cgroup.oom_kills`."""
        return memory_events.count(_read_if_there(f"{self.directory('memory')}/memory.oom_control"))

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
            _note(found, key, f"{self.directory(controller)}/{file}")
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
    if procfs.read(f"{path}/cgroup.subtree_control").strip():
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


def _cpu_ns(path: str) -> int:
    for line in procfs.read(f"{path}/cpu.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "usage_usec":
            return int(value) * 1000
    return 0


def _note(found: dict[str, int], key: str, path: str) -> None:
    try:
        found[key] = int(procfs.read(path))
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


def _write_if_possible(path: str, text: str) -> None:
    """Write where the file may be missing or the kernel may refuse: an optional controller, a limit to lift."""
    try:
        _write(path, text)
    except OSError:
        return


def _read_if_there(path: str) -> str:
    try:
        return procfs.read(path)
    except FileNotFoundError:
        return ""


def _swappiness() -> str:
    return procfs.read("/proc/sys/vm/swappiness").strip()
