"""What an instance may use of its host, from before it starts until it has ended; and what it needs of the kernel."""

from __future__ import annotations

from dataclasses import dataclass

from pylxc.errors import BadRequest, NotFound, PylxcError
from pylxc.kernel import modules
from pylxc.paths import Paths
from pylxc.runtime.handle import Runtime
from pylxc.runtime.spec import Limits, Mount
from pylxc.services.instances import disk_limits, limits, root_size
from pylxc.services.instances.cpus import Cpus, CpuWatch, is_set
from pylxc.services.instances.expand import Record
from pylxc.services.instances.locks import InstanceLocks
from pylxc.services.instances.lxcfs import Lxcfs
from pylxc.services.storage.service import StoragePools
from pylxc.services.warnings import LIMIT, SIZE, Warnings


@dataclass(frozen=True, slots=True)
class Share:
    """What an instance starts with: its limits, and mounts that show it what it has."""

    limits: Limits
    mounts: tuple[Mount, ...] = ()


class Allotments:
    """The limits of running instances; thread-safe.

    Attributes:
        cpus: which CPUs they run on.
    """

    def __init__(
        self, paths: Paths, runtime: Runtime, storage: StoragePools, locks: InstanceLocks, warnings: Warnings
    ) -> None:
        self._storage = storage
        self._runtime = runtime
        self._warnings = warnings
        self.cpus = Cpus(runtime.set_cpus)
        self._watch = CpuWatch(self.cpus.spread)
        self._lxcfs = Lxcfs(paths, runtime, locks)

    def close(self) -> None:
        """Take no notice any more of CPUs that come or go, nor of LXCFS."""
        self._watch.close()
        self._lxcfs.close()

    def prepare(self, found: Record) -> Share:
        """Return what an instance is to start with, and load the kernel modules that it wants.

        `release` undoes what is noted of it here.

        Raises:
            BadRequest: a module cannot be loaded, or the block device below a disk with limits cannot be told.
        """
        load_modules(found)
        cpus = self.cpus.place(found.key, found.expanded_config.get("limits.cpu", ""))
        io = disk_limits.of(found.expanded_devices, self._pool_path)
        return Share(limits.compute(found.expanded_config, cpus, io), self._lxcfs.mounts())

    def fit_root(self, found: Record) -> None:
        """Give an instance's root disk its configured size before a start; warn when that cannot be."""
        if why := root_size.settle(self._storage.volumes, found):
            self._warnings.add(SIZE, f"The root disk of instance {found.name!r} has another size: {why}", found.id)
        else:
            self._warnings.resolve(SIZE, found.id)

    def started(self, found: Record, share: Share) -> None:
        """Warn of the limits that this host does not have: an instance starts without them, as with LXD."""
        self.cpus.settle(found.key, share.limits.cpus)
        lacking = self._lacking(found)
        if lacking:
            message = "; ".join(f"{key}: {why}" for key, why in sorted(lacking.items()))
            self._warnings.add(LIMIT, f"Instance {found.name!r} runs without {message}", found.id)
        else:
            self._warnings.resolve(LIMIT, found.id)

    def change(self, found: Record) -> None:
        """Give a running instance the limits of its configuration.

        Raises:
            BadRequest: this host does not have one, or cannot give it; those before it are set.
        """
        io = disk_limits.of(found.expanded_devices, self._pool_path)
        cpus = self.cpus.place(found.key, found.expanded_config.get("limits.cpu", ""))
        self._runtime.set_limits(found.key, limits.compute(found.expanded_config, cpus, io))
        if not self._lacking(found):
            self._warnings.resolve(LIMIT, found.id)

    def _lacking(self, found: Record) -> dict[str, str]:
        """Return the limits that a running instance is without: why, by key."""
        try:
            lacking = self._runtime.lacking(found.key) | limits.refused(found.expanded_config)
        except NotFound:  # it has ended already
            return {}
        limit = found.expanded_config.get("limits.cpu", "")
        if is_set(limit) and not self.cpus.has_own(found.key):
            lacking["limits.cpu"] = f"none of the CPUs {limit} is online"
        return lacking

    def _pool_path(self, pool: str) -> str:
        return self._storage.driver(pool).path("")

    def adopt(self, found: Record) -> None:
        """Take note of an instance that has run on without the daemon; `cpus.spread` is to follow."""
        try:
            self.cpus.adopt(
                found.key, found.expanded_config.get("limits.cpu", ""), self._runtime.cgroup(found.key).cpus()
            )
        except NotFound:  # it has ended just now
            return

    def release(self, key: str) -> None:
        """Take note that an instance does not run any more."""
        self.cpus.release(key)


def load_modules(found: Record) -> None:
    """Load the kernel modules of `linux.kernel_modules`.

    Raises:
        BadRequest: one cannot be loaded; it is named.
    """
    names = (name.strip() for name in found.expanded_config.get("linux.kernel_modules", "").split(","))
    for name in filter(None, names):
        try:
            modules.load(name)
        except PylxcError as error:
            raise BadRequest(f"Failed loading kernel module {name!r}: {error.message}", hint=error.hint) from error
