"""From an instance's expanded configuration to the ContainerSpec that the runtime starts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Protocol

from pylxc.config.instance import INSTANCE
from pylxc.errors import BadRequest
from pylxc.paths import Paths
from pylxc.runtime.spec import INIT, Confinement, ContainerSpec, DeviceNode, IdMap, Mount
from pylxc.services.instances import limits, raw_lxc, syscalls
from pylxc.services.instances.allotment import Share
from pylxc.services.instances.expand import Record
from pylxc.services.instances.raw_lxc import RawLxc

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
    record: Record, paths: Paths, rootfs: str, idmap: IdMap | None, share: Share, devices: DeviceParts, profile: str
) -> ContainerSpec:
    """Return the spec of an instance.

    Args:
        record: the instance.
        paths: where its logs and run directory are.
        rootfs: its tree on the host.
        idmap: from `idmap.choose`; None when it is privileged.
        share: its limits and what shows it these.
        devices: what its devices add.
        profile: its AppArmor profile, "" for none.

    Raises:
        BadRequest: there is nothing in the tree; or a line of `raw.seccomp`, `raw.lxc` or a list of system calls is
            malformed.
        NotSupported: such a line asks for what pylxc does not do.
    """
    if not os.path.isdir(rootfs) or not os.listdir(rootfs):
        raise BadRequest("The instance is empty: there is no init to start", hint="pylxc file push")
    raw = raw_lxc.of(record.expanded_config)
    config = record.expanded_config | raw.config
    return ContainerSpec(
        key=record.key,
        hostname=record.name,
        run_dir=paths.instance_run(record.key),
        log_dir=paths.instance_logs(record.key),
        rootfs=rootfs,
        idmap=idmap,
        environment=_with_prefix(config, "environment."),
        init=raw.init or INIT,
        mounts=(_guest_api(record.key, paths, idmap), *share.mounts, *devices.mounts, *raw.mounts),
        devices=tuple(devices.nodes),
        limits=share.limits,
        confinement=confinement(config, raw, profile),
        sysctls=_with_prefix(config, "linux.sysctl."),
        nesting=INSTANCE.is_true(config, "security.nesting"),
    )


def _guest_api(key: str, paths: Paths, idmap: IdMap | None) -> Mount:
    # To an unprivileged container the directory belongs to nobody, and it can put nothing there: read-only as well
    # would only make its start slower.
    options = () if idmap else ("ro", "nosuid", "nodev", "noexec")
    return Mount(source=paths.instance_devlxd(key), target="/dev/lxd", options=options, create="dir")


def confinement(config: Mapping[str, str], raw: RawLxc, profile: str) -> Confinement:
    """Return what holds an instance of this expanded configuration; raises like `build`."""
    default, rules = syscalls.policy(config)
    dropped = _PRIVILEGED_DROPS if INSTANCE.is_true(config, "security.privileged") else ()
    return Confinement(
        drop_capabilities=tuple(dict.fromkeys((*dropped, *raw.drop_capabilities))),
        seccomp=rules,
        seccomp_default=default,
        foreign_abis=syscalls.foreign_abis(config),
        apparmor=profile,
        rlimits=limits.rlimits(config),
    )


def _with_prefix(config: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
