"""From an instance's expanded configuration to the ContainerSpec that the runtime starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from pylxc.config.instance import INSTANCE
from pylxc.errors import BadRequest
from pylxc.paths import Paths
from pylxc.runtime.spec import Confinement, ContainerSpec, DeviceNode, IdMap, Mount
from pylxc.services.instances import limits
from pylxc.services.instances.allotment import Share
from pylxc.services.instances.expand import Record

_ENOSYS = "errno:38"
_DEFAULT_DENIED = ("kexec_load", "open_by_handle_at", "init_module", "finit_module", "delete_module")
_PRIVILEGED_DROPS = ("sys_time", "sys_module", "sys_rawio", "mac_admin", "mac_override")


class DeviceParts(Protocol):
    """What devices add to a container: a DeviceManager's RunConfig."""

    @property
    def mounts(self) -> Iterable[Mount]:
        """Mounts, in order."""

    @property
    def nodes(self) -> Iterable[DeviceNode]:
        """Device nodes."""


def build(
    record: Record, paths: Paths, rootfs: str, idmap: IdMap | None, share: Share, devices: DeviceParts
) -> ContainerSpec:
    """Return the spec of an instance.

    Args:
        record: the instance.
        paths: where its logs and run directory are.
        rootfs: its tree on the host.
        idmap: from `idmap.choose`; None when it is privileged.
        share: its limits and what shows it these.
        devices: what its devices add.

    Raises:
        BadRequest: a system call list names an action that is not known.
    """
    config = record.expanded_config
    return ContainerSpec(
        key=record.key,
        hostname=record.name,
        run_dir=paths.instance_run(record.key),
        log_dir=paths.instance_logs(record.key),
        rootfs=rootfs,
        idmap=idmap,
        environment=_with_prefix(config, "environment."),
        mounts=(_guest_api(record.key, paths, idmap), *share.mounts, *devices.mounts),
        devices=tuple(devices.nodes),
        limits=share.limits,
        confinement=confinement(config),
        sysctls=_with_prefix(config, "linux.sysctl."),
        nesting=INSTANCE.is_true(config, "security.nesting"),
    )


def _guest_api(key: str, paths: Paths, idmap: IdMap | None) -> Mount:
    # To an unprivileged container the directory belongs to nobody, and it can put nothing there: read-only as well
    # would only make its start slower.
    options = () if idmap else ("ro", "nosuid", "nodev", "noexec")
    return Mount(source=paths.instance_devlxd(key), target="/dev/lxd", options=options, create="dir")


def confinement(config: Mapping[str, str]) -> Confinement:
    """Return what holds an instance of this expanded configuration; raises like `build`."""
    default, rules = seccomp(config)
    return Confinement(
        drop_capabilities=_PRIVILEGED_DROPS if INSTANCE.is_true(config, "security.privileged") else (),
        seccomp=rules,
        seccomp_default=default,
        rlimits=limits.rlimits(config),
    )


def seccomp(config: Mapping[str, str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return the default action and the rules of `security.syscalls.*`.

    An allow list replaces everything else: what it does not name is killed. Otherwise the default deny list holds, and
    then what `deny` adds, as liblxc reads it: without an action a call is killed.

    Raises:
        BadRequest: an action that is not known.
    """
    allowed = config.get("security.syscalls.allow") or config.get("security.syscalls.whitelist")
    if allowed:
        return "kill", tuple((name, "allow") for name, _action in _lines(allowed))
    default = config.get("security.syscalls.deny_default") or config.get("security.syscalls.blacklist_default")
    denied = config.get("security.syscalls.deny") or config.get("security.syscalls.blacklist") or ""
    rules = [(name, _action(action)) for name, action in _lines(denied)]
    if INSTANCE.is_true({"security.syscalls.deny_default": default or ""}, "security.syscalls.deny_default"):
        named = {name for name, _action in rules}
        rules += [(name, _ENOSYS) for name in _DEFAULT_DENIED if name not in named]
    return "allow", tuple(rules)


def _lines(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        name, _, action = line.strip().partition(" ")
        if name:
            yield name, action.strip()


def _action(text: str) -> str:
    words = text.split()
    if not words:
        return "kill"
    if words[0] == "errno" and len(words) == 2 and words[1].isdigit():
        return f"errno:{words[1]}"
    if words in (["kill"], ["trap"], ["allow"]):
        return words[0]
    raise BadRequest(f"Unknown seccomp action {text!r}", hint="kill, trap, allow or errno NUMBER")


def _with_prefix(config: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
