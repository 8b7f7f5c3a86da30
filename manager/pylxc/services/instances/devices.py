"""Instances' devices: checked, turned into what a container starts with, and taken from the host again."""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from pylxc import validate
from pylxc.config import device as tables
from pylxc.config.device import DISK, NIC_BRIDGED
from pylxc.db import instances, projects, volumes
from pylxc.db.engine import Database
from pylxc.drivers.device import proxy, registry
from pylxc.drivers.device.driver import Context, HostTools, Nic, RunConfig, Volume
from pylxc.drivers.network.driver import Host
from pylxc.errors import BadRequest, NotFound, PylxcError, Unavailable
from pylxc.kernel.netlink import random_hwaddr
from pylxc.paths import Paths, storage_name
from pylxc.revert import Reverter
from pylxc.runtime.proxies import Proxies
from pylxc.runtime.spec import DeviceNode, Mount
from pylxc.services.instances.checks import without_empty
from pylxc.services.networks.service import Networks
from pylxc.services.projects import restrictions
from pylxc.services.storage.service import StoragePools
from pylxc.services.volumes.service import CustomVolumes

log = logging.getLogger(__name__)

Devices = Mapping[str, Mapping[str, str]]

_ON_PATHS = ("disk", "unix-block", "unix-char")
_WITH_PARENTS_ADDRESS = ("ipvlan", "physical")
_KEEP_ADDRESS = ("ipv4.address", "ipv6.address", "security.ipv4_filtering", "security.ipv6_filtering")
"""NICs that have one of these have the same address at the next start."""


class Prepared:
    """What devices add to a container that is to get them.

    Attributes:
        project: the instance's.
        name: the instance.
        volatile: configuration keys to be kept while it runs.
    """

    def __init__(self, project: str, name: str, volatile: Mapping[str, str]) -> None:
        """With `volatile` keys beside those of the devices themselves."""
        self.project = project
        self.name = name
        self.volatile = dict(volatile)
        self._devices: dict[str, tuple[Context, RunConfig]] = {}

    def add(self, context: Context, run: RunConfig) -> None:
        """Take what one device adds."""
        self.volatile |= run.volatile
        self._devices[context.name] = (replace(context, config={**context.config, **run.volatile}), run)

    @property
    def instance(self) -> str:
        """The instance's key on disk."""
        return storage_name(self.project, self.name)

    @property
    def names(self) -> list[str]:
        """The devices' names."""
        return list(self._devices)

    def only(self, device: str) -> Prepared:
        """Return what one of the devices adds."""
        found = Prepared(self.project, self.name, {})
        found.add(*self._devices[device])
        return found

    def devices(self) -> list[tuple[Context, RunConfig]]:
        """Return the devices in order of their names' expansion, with what they add."""
        return list(self._devices.values())

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """All mounts, those on a directory before those below it."""
        mounts = (mount for _, run in self._devices.values() for mount in run.mounts)
        return tuple(sorted(mounts, key=lambda mount: mount.target))

    @property
    def nodes(self) -> tuple[DeviceNode, ...]:
        """All device nodes."""
        return tuple(node for _, run in self._devices.values() for node in run.nodes)

    @property
    def nics(self) -> tuple[Nic, ...]:
        """All NICs."""
        return tuple(nic for _, run in self._devices.values() for nic in run.nics)


class DeviceManager:
    """Knows the drivers of devices and what of networks and storage they need; thread-safe."""

    def __init__(
        self,
        db: Database,
        paths: Paths,
        networks: Networks,
        storage: StoragePools,
        custom: CustomVolumes,
        proxies: Proxies,
    ) -> None:
        self._db = db
        self._networks = networks
        self._storage = storage
        self._volumes = custom
        self._host = HostTools(
            netlink=networks.netlink,
            firewall=networks.firewall,
            proxies=proxies,
            redirects=networks.redirects,
            run_dir=f"{paths.run}/devices",
            has_others=self._has_others,
        )

    def validate(self, devices: Devices, project: str, *, in_profile: bool = False) -> None:
        """Check devices' names, keys and values, and that the pools, networks and volumes that they name are there.

        Args:
            devices: as configured, not expanded.
            project: the instance's, or the profile's.
            in_profile: they are those of a profile, which may be incomplete, and whose volumes are looked for in the
                projects of its instances.

        Raises:
            BadRequest: something is wrong; the device is named.
            NotSupported: the dialect knows it, and this server does not do it.
        """
        for name, given in devices.items():
            validate.device_name(name)
            try:
                tables.table(given).validate(given)
                device = without_empty(given)
                registry.find(device).validate(name, device, in_profile=in_profile)
                self._check_references(project, device)
                if not in_profile:
                    self._volume_of(project, device)
            except PylxcError as error:
                if name not in error.message:
                    error.message = f"Device {name!r}: {error.message}"
                raise

    def _check_references(self, project: str, device: Mapping[str, str]) -> None:
        if device.get("pool"):
            self._storage.get(device["pool"])
            if device.get("size"):
                self._storage.volumes.require_sizes(device["pool"])
        if device["type"] != "nic" or not device.get("network"):
            return
        try:
            network = self._networks.attachable(device["network"], project)["config"]
        except NotFound as error:
            raise BadRequest(error.message) from error
        for family in ("ipv4", "ipv6"):
            wanted = device.get(f"{family}.address", "none")
            if wanted == "none":
                continue
            subnet = network.get(f"{family}.address", "none")
            if subnet == "none" or ipaddress.ip_address(wanted) not in ipaddress.ip_interface(subnet).network:
                raise BadRequest(f"Address {wanted} is not within the {family} subnet of network {device['network']!r}")
            if ipaddress.ip_address(wanted) == ipaddress.ip_interface(subnet).ip:
                raise BadRequest(f"Address {wanted} is that of network {device['network']!r} itself")

    def volatile(self, name: str, devices: Devices, config: Mapping[str, str]) -> dict[str, str]:
        """Return the volatile keys that an instance's devices need and that it does not have: MAC addresses and names.

        Args:
            name: the instance.
            devices: expanded.
            config: expanded, with volatile keys.
        """
        del name
        found: dict[str, str] = {}
        nics = {device: keys for device, keys in devices.items() if keys.get("type") == "nic"}
        taken = {keys["name"] for keys in nics.values() if keys.get("name")}
        taken |= {value for device in nics if (value := config.get(f"volatile.{device}.name"))}
        for device, keys in nics.items():
            has_own = keys.get("nictype") not in _WITH_PARENTS_ADDRESS
            if has_own and not keys.get("hwaddr") and not config.get(f"volatile.{device}.hwaddr"):
                found[f"volatile.{device}.hwaddr"] = random_hwaddr()
            if not keys.get("name") and not config.get(f"volatile.{device}.name"):
                free = next(f"eth{n}" for n in range(len(taken) + 1) if f"eth{n}" not in taken)
                taken.add(free)
                found[f"volatile.{device}.name"] = free
        return found

    def start(
        self,
        project: str,
        name: str,
        devices: Devices,
        config: Mapping[str, str],
        only: Collection[str] | None = None,
    ) -> Prepared:
        """Return what devices add to a container that is to get them; touches nothing.

        Args:
            project: the instance's.
            name: the instance.
            devices: all of them, expanded.
            config: expanded, with volatile keys.
            only: the names of those that it does not have yet, None for all.

        Raises:
            BadRequest: something that a device needs is missing.
        """
        own = self.volatile(name, devices, config)
        whole = {**config, **own}
        _refuse_same_names(devices, whole)
        _refuse_same_paths(devices)
        found = Prepared(project, name, own)
        for device, keys in devices.items():
            if only is None or device in only:
                context = Context(
                    name=device,
                    device=keys,
                    config=whole,
                    instance=found.instance,
                    network=self._network_of(project, keys, devices),
                    volume=self._volume_of(project, keys),
                    within=self._within(project, keys),
                    addresses=self._addresses(project, name, device, keys),
                    siblings=devices,
                )
                self._refuse_leased(project, context)
                found.add(context, registry.find(keys).start(context, self._host))
        return found

    def _refuse_leased(self, project: str, context: Context) -> None:
        """Refuse a static address that DHCP has given to somebody else: its server would give another one."""
        device = context.device
        wanted = {device[key] for key in ("ipv4.address", "ipv6.address") if device.get(key, "none") != "none"}
        if not wanted or device.get("type") != "nic" or not device.get("network"):
            return
        own = (device.get("hwaddr") or context.volatile("hwaddr")).lower()
        for lease in self._networks.leases(device["network"], project):
            if lease["address"] in wanted and lease["hwaddr"] not in ("", own):
                who = lease["hostname"] or lease["hwaddr"]
                hint = f"stop it, or choose an address outside of {device['network']}'s DHCP ranges"
                raise BadRequest(f"Address {lease['address']} of device {context.name!r} is leased to {who}", hint=hint)

    def _addresses(self, project: str, name: str, device: str, keys: Mapping[str, str]) -> dict[str, str]:
        """Return the addresses that a NIC is held to and has not been configured with."""
        if keys.get("type") != "nic" or not keys.get("network"):
            return {}
        wanted = [
            family
            for family in ("ipv4", "ipv6")
            if NIC_BRIDGED.is_true(keys, f"security.{family}_filtering") and not keys.get(f"{family}.address")
        ]
        nic = (project, name, device)
        return {family: self._networks.reserve_address(keys["network"], nic, family) for family in wanted}

    def _network_of(self, project: str, device: Mapping[str, str], siblings: Devices) -> Mapping[str, str] | None:
        if device.get("type") == "proxy" and proxy.is_nat(device):
            device = siblings[proxy.target_nic(device, siblings)]
        if device.get("type") != "nic" or not device.get("network"):
            return None
        try:
            return self._networks.attachable(device["network"], project)["config"]
        except NotFound as error:
            raise BadRequest(error.message) from error

    def _volume_of(self, project: str, device: Mapping[str, str]) -> Volume | None:
        """Return the custom volume of a disk of an instance; None for other devices, and where it may be missing."""
        for pool, name in volumes.named([device]):
            try:
                return self._volumes.mountable(project, pool, name)
            except (NotFound, Unavailable) as error:
                if DISK.is_true(device, "required"):
                    raise type(error)(error.message, hint="set required=false to do without it") from error
        return None

    def _within(self, project: str, device: Mapping[str, str]) -> str:
        """Return the directory that a restricted project keeps a disk's source in, "" for anywhere."""
        if device.get("type") != "disk" or device.get("pool"):
            return ""
        with self._db.reading() as session:
            return restrictions.disk_root(projects.get(session, project).config, device["source"])

    @contextmanager
    def using_volumes(self, project: str, devices: Iterable[Mapping[str, str]]) -> Iterator[None]:
        """Keep the custom volumes of disks in their place, from before `start` until the instance's row has them."""
        wanted = list(volumes.named(devices))
        with self._volumes.using(project, wanted) if wanted else nullcontext():
            yield

    def attach(self, prepared: Prepared, pid: int) -> None:
        """Make what devices need on the host, NICs among it, for a container whose init does not run yet; all or none.

        Args:
            prepared: from `start`.
            pid: of its PID 1, in whose network namespace NICs are made.

        Raises:
            PylxcError: one cannot be had.
        """
        with Reverter() as revert:
            for context, run in prepared.devices():
                live = replace(context, pid=pid)
                revert.add(self._forget, prepared.project, prepared.name, live)
                self._make_known(prepared.project, prepared.name, live)
                driver = registry.find(context.device)
                driver.attach(live, run, self._host)
                revert.add(driver.detach, live, self._host)
            revert.success()

    def enter(self, prepared: Prepared, pid: int) -> None:
        """Make what devices need inside, when its files are there; arguments and errors as `attach` has them."""
        for context, _ in prepared.devices():
            registry.find(context.device).enter(replace(context, pid=pid), self._host)

    def resume(self, project: str, name: str, context: Context) -> None:
        """Take up again what the daemon itself does for a device of a container that has run on without it.

        Raises:
            PylxcError: it cannot be.
        """
        whole = self._whole(project, name, context)
        registry.find(context.device).resume(whole, self._host)

    def update(self, project: str, name: str, before: Context, after: Context) -> None:
        """Change a device of a running container in place.

        Raises:
            PylxcError: it cannot be; all is as it was.
        """
        old, new = self._whole(project, name, before), self._whole(project, name, after)
        with Reverter() as revert:
            revert.add(self._make_known, project, name, old)
            self._make_known(project, name, new)
            registry.find(after.device).update(old, new, self._host)
            revert.success()

    def _whole(self, project: str, name: str, context: Context) -> Context:
        addresses = self._addresses(project, name, context.name, context.device)
        with self._db.reading() as session:
            row = instances.get(session, project, name)
        siblings = {other: each["device"] for other, each in row.attached.items()}
        network = self._network_of(project, context.device, siblings)
        return replace(context, network=network, addresses=addresses, siblings=siblings)

    def detach(self, project: str, name: str, context: Context) -> None:
        """Take from the host what a device of a container had there that runs on without it.

        Raises:
            PylxcError: the kernel refuses.
        """
        registry.find(context.device).detach(context, self._host)
        self._forget(project, name, context)

    def _make_known(self, project: str, name: str, context: Context) -> None:
        device = context.device
        if device.get("type") == "nic" and device.get("network"):
            # An instance of another project is PROJECT_NAME in DNS: no other instance can be called so.
            host = Host(
                hwaddr=(device.get("hwaddr") or context.volatile("hwaddr")).lower(),
                name=storage_name(project, name),
                ipv4=context.address("ipv4"),
                ipv6=context.address("ipv6"),
            )
            self._networks.set_host(device["network"], (project, name, context.name), host)

    def stop(self, project: str, name: str, devices: Devices, volatile: Mapping[str, str]) -> None:
        """Take from the host what the devices of a container had there. Never raises: what fails is logged.

        An address that DHCP chose is given back; one that is configured stays reserved until `remove`.

        Args:
            project: the instance's.
            name: the instance.
            devices: as it was started with.
            volatile: configuration with the volatile keys as they were while it ran.
        """
        instance = storage_name(project, name)
        for device, keys in devices.items():
            try:
                context = Context(name=device, device=keys, config=volatile, instance=instance)
                registry.find(keys).detach(context, self._host)
                if not any(keys.get(key) for key in _KEEP_ADDRESS):
                    self._forget(project, name, context)
            except (PylxcError, OSError) as error:
                log.warning("Failed removing device %s of instance %s: %s", device, name, error)

    def remove(self, project: str, name: str, devices: Devices, volatile: Mapping[str, str]) -> None:
        """Forget devices for good: the instance is deleted or renamed, or they are. Arguments as `stop` has them."""
        for device, keys in devices.items():
            try:
                self._forget(project, name, Context(name=device, device=keys, config=volatile))
            except (PylxcError, OSError) as error:
                log.warning("Failed removing device %s of instance %s: %s", device, name, error)

    def _forget(self, project: str, name: str, context: Context) -> None:
        device = context.device
        if device.get("type") == "nic" and device.get("network"):
            hwaddr = device.get("hwaddr") or context.volatile("hwaddr")
            self._networks.forget_host(device["network"], (project, name, context.name), hwaddr.lower())

    def sweep(self, running: Mapping[str, Devices]) -> None:
        """Remove rules of NICs that are gone; `running` are the devices of containers that run, by instance key.

        Raises:
            Unavailable: the firewall cannot be reached.
        """
        self._networks.redirects.sweep(
            "proxy", {f"{key}.{name}" for key, devices in running.items() for name in devices}
        )
        self._networks.firewall.sweep("nic", {f"{key}.{name}" for key, devices in running.items() for name in devices})

    def _has_others(self, context: Context) -> bool:
        with self._db.reading() as session:
            rows = instances.with_devices(session)
        return any(
            (storage_name(row.project.name, row.name), name) != (context.instance, context.name)
            and all(each["device"].get(key) == context.device.get(key) for key in ("parent", "vlan"))
            for row in rows
            for name, each in row.attached.items()
        )


def _refuse_same_names(devices: Devices, config: Mapping[str, str]) -> None:
    names: set[str] = set()
    for device, keys in devices.items():
        if keys.get("type") == "nic":
            name = keys.get("name") or config[f"volatile.{device}.name"]
            if name in names:
                raise BadRequest(f"Two network devices are named {name!r} inside")
            names.add(name)


def _refuse_same_paths(devices: Devices) -> None:
    with_path = [keys for keys in devices.values() if keys.get("type") in _ON_PATHS]
    paths = [os.path.normpath("/" + (keys.get("path") or keys["source"]).strip("/")) for keys in with_path]
    if twice := {path for path in paths if paths.count(path) > 1}:
        raise BadRequest(f"More than one device uses the same path {min(twice)!r}")
