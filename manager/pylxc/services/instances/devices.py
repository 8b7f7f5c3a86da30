"""Instances' devices: checked, turned into what a container starts with, and taken from the host again."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping

from pylxc import validate
from pylxc.config import device as tables
from pylxc.drivers.device import registry
from pylxc.drivers.device.driver import Context, RunConfig
from pylxc.drivers.network.driver import Host
from pylxc.errors import BadRequest, NotFound, PylxcError
from pylxc.kernel.netlink import random_hwaddr
from pylxc.paths import Paths, storage_name
from pylxc.revert import Reverter
from pylxc.services.networks.service import Networks
from pylxc.services.storage.service import StoragePools

log = logging.getLogger(__name__)

Devices = Mapping[str, Mapping[str, str]]


class DeviceManager:
    """Knows the drivers of devices and what of networks and storage they need; thread-safe."""

    def __init__(self, networks: Networks, storage: StoragePools, paths: Paths) -> None:
        self._networks = networks
        self._storage = storage
        self._paths = paths

    def validate(self, devices: Devices, *, in_profile: bool) -> None:
        """Check devices' names, keys and values, and that the pools and networks that they name are there.

        Args:
            devices: as configured, not expanded.
            in_profile: a profile's, which may be incomplete.

        Raises:
            BadRequest: something is wrong; the device is named.
            NotSupported: the dialect knows it, and this server does not do it.
        """
        for name, device in devices.items():
            validate.device_name(name)
            try:
                tables.table(device).validate(device)
                registry.find(device).validate(name, device, in_profile=in_profile)
                self._check_references(device)
            except PylxcError as error:
                if name not in error.message:
                    error.message = f"Device {name!r}: {error.message}"
                raise

    def _check_references(self, device: Mapping[str, str]) -> None:
        if device.get("pool"):
            self._storage.get(device["pool"])
        if device["type"] != "nic" or not device.get("network"):
            return
        try:
            network = self._networks.attachable(device["network"])["config"]
        except NotFound as error:
            raise BadRequest(error.message) from error
        for family in ("ipv4", "ipv6"):
            wanted = device.get(f"{family}.address", "none")
            if wanted == "none":
                continue
            subnet = network.get(f"{family}.address", "none")
            if subnet == "none" or ipaddress.ip_address(wanted) not in ipaddress.ip_interface(subnet).network:
                raise BadRequest(f"Address {wanted} is not within the {family} subnet of network {device['network']!r}")

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
            if not keys.get("hwaddr") and not config.get(f"volatile.{device}.hwaddr"):
                found[f"volatile.{device}.hwaddr"] = random_hwaddr()
            if not keys.get("name") and not config.get(f"volatile.{device}.name"):
                free = next(f"eth{n}" for n in range(len(taken) + 1) if f"eth{n}" not in taken)
                taken.add(free)
                found[f"volatile.{device}.name"] = free
        return found

    def start(self, project: str, name: str, devices: Devices, config: Mapping[str, str]) -> RunConfig:
        """Return what the devices add to a container that starts, and make its NICs known to their networks.

        Args:
            project: the instance's.
            name: the instance.
            devices: expanded.
            config: expanded, with volatile keys.

        Raises:
            BadRequest: something that a device needs is missing.
        """
        whole = {**self.volatile(name, devices, config)}
        total = RunConfig(volatile=whole)
        with Reverter() as revert:
            for device, keys in devices.items():
                context = Context(name=device, device=keys, config={**config, **whole}, network=self._network_of(keys))
                total += registry.find(keys).start(context)
            _refuse_same_names(total)
            for nic in total.nics:
                if nic.network:
                    # An instance of another project is PROJECT_NAME in DNS: no other instance can be called so.
                    host = Host(hwaddr=nic.hwaddr, name=storage_name(project, name), ipv4=nic.ipv4, ipv6=nic.ipv6)
                    revert.add(self._networks.forget_host, nic.network, (project, name, nic.device), "")
                    self._networks.set_host(nic.network, (project, name, nic.device), host)
            revert.success()
        return total

    def _network_of(self, device: Mapping[str, str]) -> Mapping[str, str] | None:
        if device.get("type") != "nic" or not device.get("network"):
            return None
        try:
            return self._networks.attachable(device["network"])["config"]
        except NotFound as error:
            raise BadRequest(error.message) from error

    def attach(self, run: RunConfig, pid: int) -> None:
        """Give a container that is being started its NICs.

        Args:
            run: from `start`.
            pid: of its PID 1, in whose network namespace they are made.

        Raises:
            PylxcError: one cannot be made; `stop` removes the others.
        """
        for nic in run.nics:
            registry.find({"type": "nic", "nictype": nic.nictype}).attach(nic, pid, self._networks.netlink)

    def stop(self, project: str, name: str, devices: Devices, volatile: Mapping[str, str]) -> None:
        """Take from the host what the devices of a container had there. Never raises: what fails is logged.

        An address that DHCP chose is given back; one that is configured stays reserved until `remove`.

        Args:
            project: the instance's.
            name: the instance.
            devices: as it was started with.
            volatile: configuration with the volatile keys as they were while it ran.
        """
        for device, keys in devices.items():
            if keys.get("type") != "nic":
                continue
            try:
                context = Context(name=device, device=keys, config=volatile)
                registry.find(keys).detach(context, self._networks.netlink)
                if not any(keys.get(f"{family}.address") for family in ("ipv4", "ipv6")):
                    self._forget(project, name, device, keys, volatile)
            except (PylxcError, OSError) as error:
                log.warning("Failed removing device %s of instance %s: %s", device, name, error)

    def remove(self, project: str, name: str, devices: Devices, volatile: Mapping[str, str]) -> None:
        """Forget devices for good: the instance is deleted or renamed, or they are. Arguments as `stop` has them."""
        for device, keys in devices.items():
            if keys.get("type") == "nic":
                try:
                    self._forget(project, name, device, keys, volatile)
                except (PylxcError, OSError) as error:
                    log.warning("Failed removing device %s of instance %s: %s", device, name, error)

    def _forget(
        self, project: str, name: str, device: str, keys: Mapping[str, str], volatile: Mapping[str, str]
    ) -> None:
        if keys.get("network"):
            hwaddr = keys.get("hwaddr") or volatile.get(f"volatile.{device}.hwaddr", "")
            self._networks.forget_host(keys["network"], (project, name, device), hwaddr.lower())


def _refuse_same_names(run: RunConfig) -> None:
    names = [nic.name for nic in run.nics]
    for name in names:
        if names.count(name) > 1:
            raise BadRequest(f"Two network devices are named {name!r} inside")
