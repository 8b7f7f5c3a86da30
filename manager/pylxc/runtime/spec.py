"""What the runtime is told about a container: plain data, JSON both ways, no policy.

Services compute it from the expanded configuration, devices add to it, the monitor applies it. Numbers are in
kernel units (bytes, ids of the host unless a name says otherwise).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

INIT = ("/sbin/init",)
"""What runs as PID 1 unless something else is wanted."""


@dataclass(frozen=True, slots=True)
class IdRange:
    """`length` ids from `inside` (the container's) on are `outside` (the host's) and up. See: user_namespaces(7)."""

    inside: int
    outside: int
    length: int


@dataclass(frozen=True, slots=True)
class IdMap:
    """The uid and gid maps of a user namespace."""

    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]

    @classmethod
    def single(cls, outside: int, length: int) -> Self:
        """Return the map of container ids 0..length-1 to `outside` and up, for uids and gids alike."""
        ids = (IdRange(0, outside, length),)
        return cls(ids, ids)

    @classmethod
    def from_json(cls, data: dict[str, list[dict[str, int]]]) -> Self:
        """Read what `dataclasses.asdict` wrote."""
        return cls(tuple(IdRange(**r) for r in data["uids"]), tuple(IdRange(**r) for r in data["gids"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mount inside the container, made before its init runs.

    `source` is a host path for a bind mount (`fstype` empty), else what mount(2) takes. `target` is the path inside,
    resolved below the container's root only. `options` are mount(8) words; `shift` maps the ids of a bind mount as
    the root file system's are; `create` makes a missing target ("dir", "file" or ""). Where `within` is
    given, no link may lead a bind mount's source out of that directory of the host.
    """

    source: str
    target: str
    fstype: str = ""
    options: tuple[str, ...] = ()
    shift: bool = False
    create: str = ""
    optional: bool = False
    within: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNode:
    """A device of the host that the container may use: a node of its own, mounted on `path`, and a cgroup rule.

    `kind` is "char" or "block"; `uid` and `gid` are ids inside. `source` is the host's own node, which need not be
    there: it is mounted where we may make none.
    """

    source: str
    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o660
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class IoLimit:
    """The most that may be read from and written to a block device ("254:0") in a second; None is no limit."""

    device: str
    read_bytes: int | None = None
    write_bytes: int | None = None
    read_iops: int | None = None
    write_iops: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Resource limits in one neutral form; `kernel.cgroup` writes them for the host's layout. None is no limit.

    Bytes for memory and swap, `cpus` is a cpuset list ("0-3,6"), `cpu_quota`/`cpu_period` in microseconds,
    `cpu_weight` and `io_weight` on cgroup v2's 1..10000 scale, `swappiness` the kernel's 0..200, `hugepages` bytes by
    the size of a page ("2MB").
    """

    memory: int | None = None
    memory_soft: int | None = None
    swap: int | None = None
    processes: int | None = None
    cpus: str | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpu_weight: int | None = None
    io_weight: int | None = None
    swappiness: int | None = None
    hugepages: dict[str, int] = field(default_factory=dict)
    io: tuple[IoLimit, ...] = ()


class Comparison(NamedTuple):
    """A condition on a system call's argument number `argument`: == != < <= > >=, or &= (`value` after `mask`)."""

    argument: int
    operator: str
    value: int
    mask: int = 0


class SyscallRule(NamedTuple):
    """What becomes of a system call whose arguments meet all conditions: "allow", "kill", "trap" or "errno:N"."""

    name: str
    action: str
    arguments: tuple[Comparison, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What PID 1 and everything that enters the container is held by.

    `drop_capabilities` are names without `CAP_` in lower case; `seccomp` is an ordered list of rules, everything else
    follows `seccomp_default`; an empty list with default "allow" loads no filter. Without `foreign_abis` no call that
    a 32-bit program makes exists. `apparmor` is a profile that the kernel has, "" for none. `rlimits` are (name without
    `RLIMIT_` in lower case, soft, hard), -1 is unlimited.
    """

    drop_capabilities: tuple[str, ...] = ()
    seccomp: tuple[SyscallRule, ...] = ()
    seccomp_default: str = "allow"
    foreign_abis: bool = True
    apparmor: str = ""
    rlimits: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """Everything that the runtime needs to start one container.

    `key` is `paths.storage_name(project, name)`: unique on the host, the name of its cgroup and run directory.
    `rootfs` is the tree on the host. With `idmap` set the container is unprivileged; `shift_rootfs` mounts the tree
    idmapped (on-disk ids are the container's own), otherwise the tree carries the host's ids already.
    `init_user` and `init_group` are ids inside. `time_namespace` adds a time namespace. `console_buffer` is how many
    bytes of the console's output are kept.
    """

    key: str
    hostname: str
    run_dir: str
    log_dir: str
    rootfs: str
    idmap: IdMap | None
    shift_rootfs: bool = True
    init: tuple[str, ...] = INIT
    environment: dict[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    limits: Limits = Limits()
    confinement: Confinement = Confinement()
    sysctls: dict[str, str] = field(default_factory=dict)
    nesting: bool = False
    time_namespace: bool = False
    init_user: int = 0
    init_group: int = 0
    console_buffer: int = 1 << 20

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One side of a proxy: `kind` is tcp, udp or unix, `address` an IP address, a path or `@` and an abstract name."""

    kind: str
    address: str
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySpec:
    """A proxy between the host and a container.

    `bind` is the side that it listens on, "host" or "instance"; it connects on the other. `connect` has one port for
    all that it listens on, or one for each. `proxy_protocol` tells the client's address to TCP targets. `uid`, `gid`
    and `mode` are those of a listening unix socket. `user` and `group` are what it connects as, ids of the side that
    it connects on; None is as few rights as will do.
    """

    bind: str
    listen: Endpoint
    connect: Endpoint
    proxy_protocol: bool = False
    uid: int = 0
    gid: int = 0
    mode: int = 0o644
    user: int | None = None
    group: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecSpec:
    """A process to run inside a running container. `uid` and `gid` are ids inside; `width`/`height` in characters."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    cwd: str = "/root"
    uid: int = 0
    gid: int = 0
    interactive: bool = False
    width: int = 80
    height: int = 24

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerExit:
    """How a container's PID 1 ended.

    `reason` is "halt" (clean power-off), "reboot" (asked from inside, or by a restart), "crash" (PID 1 died by itself)
    or "killed" (a forced stop). `status` is PID 1's wait status as os.waitstatus_to_exitcode gives it. `at` is a Unix
    time in seconds. `oom_kills` is how many processes the kernel killed for want of memory and nobody has been told of.
    """

    reason: str
    status: int
    at: float
    oom_kills: int = 0
