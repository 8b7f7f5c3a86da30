"""Managed bridges: the interface with its addresses, forwarding, the firewall's rules, DHCP and DNS."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Mapping

from pylxc.config.network import BRIDGE
from pylxc.drivers.network import bridge_config as says
from pylxc.drivers.network import rules
from pylxc.drivers.network.dnsmasq import Dnsmasq
from pylxc.drivers.network.driver import Host, Lease
from pylxc.drivers.network.firewall import Firewall
from pylxc.errors import BadRequest, Internal, Unavailable
from pylxc.kernel import command, netinfo
from pylxc.kernel.netlink import Link, Netlink
from pylxc.kernel.sysctl import forward_ipv6, ipv6_works, write
from pylxc.revert import Reverter

log = logging.getLogger(__name__)

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class BridgeDriver:
    """A bridge; see `NetworkDriver`.

    Args:
        name: of the network and of its interface.
        directory: where its files are.
        netlink: of the host.
        firewall: has its rules.
    """

    def __init__(self, name: str, directory: str, netlink: Netlink, firewall: Firewall) -> None:
        self.name = name
        self._directory = directory
        self._netlink = netlink
        self._firewall = firewall
        self._dnsmasq = Dnsmasq(directory)

    def complete(self, config: Mapping[str, str], taken: list[str]) -> dict[str, str]:
        """See `NetworkDriver`. `taken` gets the chosen subnets checked against what the host uses as well."""
        return says.complete(config, taken)

    # Life

    def start(self, config: Mapping[str, str]) -> None:
        """See `NetworkDriver`."""
        if not ipv6_works() and says.address(config, "ipv6"):
            log.warning("Network %s: this host has IPv6 switched off, it goes without", self.name)
            config = {**config, "ipv6.address": "none"}
        self._firewall.check()
        if says.settings(self.name, config) and shutil.which("dnsmasq", path=_PATH) is None:
            raise command.missing("dnsmasq")
        with Reverter() as revert:
            try:
                link = self._netlink.find(self.name)
                if link is None:
                    revert.add(self.stop)
                    link = self._create(config)
                elif link.kind != "bridge":
                    raise Unavailable(f"An interface named {self.name!r} is there, and is no bridge")
                self._configure(link, config)
                chains = rules.chains(self.name, says.side(config, "ipv4"), says.side(config, "ipv6"))
                self._firewall.put("network", self.name, chains, says.way(self.name, config))
                self._serve(config)
                _forward(config)
            except OSError as error:
                raise Unavailable(
                    f"Cannot set up network {self.name!r}: {error.strerror} ({error.filename})"
                ) from error
            revert.success()

    def _create(self, config: Mapping[str, str]) -> Link:
        try:
            # For the NICs that want a VLAN of their own.
            self._netlink.add(self.name, "bridge", address=says.hwaddr(config), br_vlan_filtering=1)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            self._netlink.add(self.name, "bridge", address=says.hwaddr(config))
        return self._netlink.get(self.name)

    def _configure(self, link: Link, config: Mapping[str, str]) -> None:
        self._netlink.set(link.index, address=says.hwaddr(config), mtu=int(BRIDGE.value(config, "bridge.mtu")))
        self._set_ipv6(wanted=says.address(config, "ipv6") is not None)
        self._netlink.set(link.index, state="up")
        self._set_addresses(link, config)
        self._set_routes_and_ports(link, config)

    def _set_ipv6(self, *, wanted: bool) -> None:
        # Guests are no routers: the host takes no addresses from their advertisements, and where it has no address
        # of ours it has no link-local one either, at which they would reach it.
        for key in ("accept_ra", "autoconf", "accept_dad"):
            write(f"net/ipv6/conf/{self.name}/{key}", "0", optional=True)
        write(f"net/ipv6/conf/{self.name}/disable_ipv6", "0" if wanted else "1", optional=not wanted)

    def _set_addresses(self, link: Link, config: Mapping[str, str]) -> None:
        addresses = [own for family in says.FAMILIES if (own := says.address(config, family))]
        wanted = {(own.ip.compressed, own.network.prefixlen) for own in addresses}
        have = {
            (address.address, address.prefix)
            for interface in netinfo.interfaces([os.getpid()])[os.getpid()]
            if interface.index == link.index
            for address in interface.addresses
            if address.scope == "global"
        }
        # An IPv6 address has one prefix length. With its last IPv4 address an interface loses all IPv4 routes.
        stale = sorted(have - wanted)
        for address, prefix in (one for one in stale if ":" in one[0]):
            self._netlink.delete_address(link.index, address, prefix)
        for address, prefix in sorted(wanted - have):
            self._netlink.add_address(link.index, address, prefix)
        for address, prefix in (one for one in stale if ":" not in one[0]):
            self._netlink.delete_address(link.index, address, prefix)

    # Routes and ports may be others' too: those that are ours are written down before they are made.

    def _set_routes_and_ports(self, link: Link, config: Mapping[str, str]) -> None:
        routes, ports = says.routes(config), says.listed(config, "bridge.external_interfaces")
        old_routes, old_ports = self._noted()
        self._note({*old_routes, *routes}, {*old_ports, *ports})
        for destination in old_routes - set(routes):
            self._netlink.delete_route(link.index, destination)
        for destination in routes:
            self._netlink.add_route(link.index, destination)
        for name in old_ports - set(ports):
            port = self._netlink.find(name)
            if port is not None and port.master == link.index:
                self._netlink.set(port.index, master=0)
        for name in ports:
            self._enslave(link, name)
        self._note(set(routes), set(ports))

    def _noted(self) -> tuple[set[str], set[str]]:
        try:
            with open(f"{self._directory}/applied.json", encoding="utf-8") as file:
                noted = json.load(file)
            return set(noted["routes"]), set(noted["ports"])
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return set(), set()

    def _note(self, routes: set[str], ports: set[str]) -> None:
        if self._noted() == (routes, ports):
            return
        os.makedirs(self._directory, mode=0o711, exist_ok=True)
        path = f"{self._directory}/applied.json"
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump({"routes": sorted(routes), "ports": sorted(ports)}, file)
        os.rename(f"{path}.new", path)

    def _enslave(self, link: Link, name: str) -> None:
        port = self._netlink.find(name)
        if port is None:
            log.warning("Network %s: there is no interface %r to put into the bridge", self.name, name)
            return
        if port.master == link.index:
            return
        if port.master or port.loopback or port.kind == "bridge":
            raise BadRequest(f"Interface {name!r} cannot join a bridge: it is in use")
        facts = netinfo.interfaces([os.getpid()])[os.getpid()]
        if any(a.scope == "global" for i in facts if i.index == port.index for a in i.addresses):
            raise BadRequest(f"Interface {name!r} has addresses: only an unconfigured one can join a bridge")
        self._netlink.set(port.index, master=link.index, state="up")

    def _serve(self, config: Mapping[str, str]) -> None:
        settings = says.settings(self.name, config)
        if settings is None:
            self._dnsmasq.stop()
        else:
            self._dnsmasq.start(settings)

    def stop(self) -> None:
        """See `NetworkDriver`."""
        self._dnsmasq.stop()
        try:
            self._netlink.delete(self.name)
        except OSError as error:
            raise Internal(f"Cannot remove interface {self.name!r}: {error.strerror}") from error
        self._firewall.remove("network", self.name)

    def delete(self) -> None:
        """See `NetworkDriver`."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    # Hosts and leases

    def set_host(self, key: str, host: Host) -> None:
        """See `NetworkDriver`."""
        self._dnsmasq.set_host(key, host)

    def forget_host(self, key: str) -> None:
        """See `NetworkDriver`."""
        self._dnsmasq.forget_host(key)

    def hosts(self) -> dict[str, Host]:
        """See `NetworkDriver`."""
        return self._dnsmasq.hosts()

    def leases(self) -> list[Lease]:
        """See `NetworkDriver`."""
        return self._dnsmasq.leases()

    def release(self, hwaddr: str) -> None:
        """See `NetworkDriver`."""
        self._dnsmasq.release(hwaddr)

    def pidfd(self) -> int | None:
        """See `NetworkDriver`."""
        return self._dnsmasq.pidfd()


def _forward(config: Mapping[str, str]) -> None:
    """Have the host route. It goes on when the network goes: others may rely on it by then."""
    if says.address(config, "ipv4") and BRIDGE.is_true(config, "ipv4.routing"):
        write("net/ipv4/ip_forward", "1")
    if says.address(config, "ipv6") and BRIDGE.is_true(config, "ipv6.routing"):
        forward_ipv6()
