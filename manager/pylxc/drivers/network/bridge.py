"""Managed bridges: the interface with its addresses, forwarding, the firewall's rules, DHCP and DNS."""

from __future__ import annotations

import ipaddress
import logging
import os
import shutil
from collections.abc import Mapping

from pylxc.config.network import BRIDGE
from pylxc.drivers.network import rules, subnet
from pylxc.drivers.network.dnsmasq import Dnsmasq, Settings, Subnet
from pylxc.drivers.network.driver import Host, Lease
from pylxc.drivers.network.firewall import Firewall
from pylxc.drivers.network.sysctl import forward_ipv6, ipv6_works, write
from pylxc.errors import BadRequest, Internal, Unavailable
from pylxc.kernel import command, netinfo
from pylxc.kernel.netlink import Link, Netlink, random_hwaddr
from pylxc.revert import Reverter

log = logging.getLogger(__name__)

_FAMILIES = ("ipv4", "ipv6")
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

    # Configuration

    def complete(self, config: Mapping[str, str], taken: list[str]) -> dict[str, str]:
        """See `NetworkDriver`. `taken` gets the chosen subnets checked against what the host uses as well."""
        BRIDGE.validate(config)
        new = {key: value for key, value in config.items() if value != ""}
        if BRIDGE.value(new, "bridge.mode") != "standard":
            raise BadRequest("Networks with bridge.mode=fan are not supported")
        if BRIDGE.value(new, "bridge.driver") != "native":
            raise BadRequest("Networks with bridge.driver=openvswitch are not supported")
        for family in _FAMILIES:
            if new.get(f"{family}.address", "auto") == "auto":
                self._choose(family, new, taken)
            elif new[f"{family}.address"] != "none":
                _refuse_overlap(family, new[f"{family}.address"], taken)
        _check_ranges(new)
        if not new.get("bridge.hwaddr") and not new.get("volatile.bridge.hwaddr"):
            new["volatile.bridge.hwaddr"] = random_hwaddr()
        return new

    def _choose(self, family: str, config: dict[str, str], taken: list[str]) -> None:
        if family == "ipv4":
            config["ipv4.address"] = subnet.free_ipv4(taken)
        else:
            config["ipv6.address"] = subnet.free_ipv6() if ipv6_works() else "none"
        if config[f"{family}.address"] != "none":
            config.setdefault(f"{family}.nat", "true")

    # Life

    def start(self, config: Mapping[str, str]) -> None:
        """See `NetworkDriver`."""
        if not ipv6_works() and config.get("ipv6.address", "none") != "none":
            log.warning("Network %s: this host has IPv6 switched off, it goes without", self.name)
            config = {**config, "ipv6.address": "none"}
        self._firewall.check()
        _find_programs(config)
        with Reverter() as revert:
            try:
                link = self._netlink.find(self.name)
                if link is None:
                    revert.add(self.stop)
                    link = self._create(config)
                elif link.kind != "bridge":
                    raise Unavailable(f"An interface named {self.name!r} is there, and is no bridge")
                self._configure(link, config)
            except OSError as error:
                raise Unavailable(
                    f"Cannot set up network {self.name!r}: {error.strerror} ({error.filename})"
                ) from error
            self._set_rules(config)
            self._serve(config)
            revert.success()

    def _create(self, config: Mapping[str, str]) -> Link:
        self._netlink.add(self.name, "bridge", address=_hwaddr(config))
        return self._netlink.get(self.name)

    def _configure(self, link: Link, config: Mapping[str, str]) -> None:
        self._netlink.set(link.index, address=_hwaddr(config), mtu=int(BRIDGE.value(config, "bridge.mtu")))
        # The host takes no addresses from router advertisements of its guests.
        write(f"net/ipv6/conf/{self.name}/accept_ra", "0", optional=True)
        wants_ipv6 = _address(config, "ipv6") is not None
        if wants_ipv6:
            write(f"net/ipv6/conf/{self.name}/disable_ipv6", "0")
        wanted = {(a.ip.compressed, a.network.prefixlen) for a in (_address(config, f) for f in _FAMILIES) if a}
        have = {
            (address.address, address.prefix)
            for interface in netinfo.interfaces([os.getpid()])[os.getpid()]
            if interface.index == link.index
            for address in interface.addresses
            if address.scope == "global"
        }
        for address, prefix in have - wanted:
            self._netlink.delete_address(link.index, address, prefix)
        self._netlink.set(link.index, state="up")
        for address, prefix in sorted(wanted - have):
            self._netlink.add_address(link.index, address, prefix)
        self._set_routes(link, config)
        self._enslave(link, config)
        if _address(config, "ipv4") and BRIDGE.is_true(config, "ipv4.routing"):
            write("net/ipv4/ip_forward", "1")
        if wants_ipv6 and BRIDGE.is_true(config, "ipv6.routing"):
            forward_ipv6()

    def _set_routes(self, link: Link, config: Mapping[str, str]) -> None:
        wanted = {str(ipaddress.ip_network(text)) for f in _FAMILIES for text in _list(config.get(f"{f}.routes", ""))}
        have = {route.destination for route in self._netlink.routes() if route.index == link.index and route.is_static}
        for destination in have - wanted:
            self._netlink.delete_route(link.index, destination)
        for destination in wanted - have:
            self._netlink.add_route(link.index, destination)

    def _enslave(self, link: Link, config: Mapping[str, str]) -> None:
        for name in _list(config.get("bridge.external_interfaces", "")):
            other = self._netlink.find(name)
            if other is not None and other.master != link.index:
                facts = netinfo.interfaces([os.getpid()])[os.getpid()]
                if any(a.scope == "global" for i in facts if i.index == other.index for a in i.addresses):
                    raise BadRequest(f"Interface {name!r} has addresses: only an unconfigured one can join a bridge")
                self._netlink.set(other.index, master=link.index, state="up")

    def _set_rules(self, config: Mapping[str, str]) -> None:
        self._firewall.put("network", self.name, rules.chains(self.name, _side(config, "ipv4"), _side(config, "ipv6")))

    def _serve(self, config: Mapping[str, str]) -> None:
        settings = _settings(self.name, config)
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


def _find_programs(config: Mapping[str, str]) -> None:
    if any(_address(config, family) for family in _FAMILIES) and shutil.which("dnsmasq", path=_PATH) is None:
        raise command.missing("dnsmasq")


def _address(config: Mapping[str, str], family: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface | None:
    text = config.get(f"{family}.address", "none")
    return None if text == "none" else ipaddress.ip_interface(text)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _hwaddr(config: Mapping[str, str]) -> str:
    return config.get("bridge.hwaddr") or config["volatile.bridge.hwaddr"]


def _refuse_overlap(family: str, address: str, taken: list[str]) -> None:
    if other := subnet.overlapping(address, taken):
        raise BadRequest(f"Subnet of {family}.address {address} overlaps {other}, which is in use")


def _check_ranges(config: Mapping[str, str]) -> None:
    for family in _FAMILIES:
        address = _address(config, family)
        for text in _list(config.get(f"{family}.dhcp.ranges", "")):
            first, _, last = text.partition("-")
            if address is None or not last:
                raise BadRequest(f"Invalid value for {family}.dhcp.ranges: {text!r} is no range of {family}.address")
            if first.startswith("::"):
                continue  # relative to the subnet
            if ipaddress.ip_address(first) not in address.network or ipaddress.ip_address(last) not in address.network:
                raise BadRequest(f"Invalid value for {family}.dhcp.ranges: {text!r} is outside of {address.network}")


def _side(config: Mapping[str, str], family: str) -> rules.Side | None:
    address = _address(config, family)
    if address is None:
        return None
    return rules.Side(
        subnet=str(address),
        routing=BRIDGE.is_true(config, f"{family}.routing"),
        nat=BRIDGE.is_true(config, f"{family}.nat"),
        nat_address=config.get(f"{family}.nat.address", ""),
        nat_first=BRIDGE.value(config, f"{family}.nat.order") == "before",
    )


def _subnet(config: Mapping[str, str], family: str) -> Subnet | None:
    address = _address(config, family)
    if address is None:
        return None
    ranges = (text.partition("-") for text in _list(config.get(f"{family}.dhcp.ranges", "")))
    return Subnet(
        address=address.ip.compressed,
        prefix=address.network.prefixlen,
        dhcp=BRIDGE.is_true(config, f"{family}.dhcp"),
        ranges=tuple((first, last) for first, _, last in ranges),
        expiry=BRIDGE.value(config, f"{family}.dhcp.expiry"),
        gateway=config.get("ipv4.dhcp.gateway", "") if family == "ipv4" else "",
        stateful=family == "ipv6" and BRIDGE.is_true(config, "ipv6.dhcp.stateful"),
    )


def _settings(name: str, config: Mapping[str, str]) -> Settings | None:
    """Return what dnsmasq is to do, None when it has nothing to do."""
    ipv4, ipv6 = _subnet(config, "ipv4"), _subnet(config, "ipv6")
    if ipv4 is None and ipv6 is None:
        return None
    return Settings(
        bridge=name,
        domain=BRIDGE.value(config, "dns.domain"),
        mode=BRIDGE.value(config, "dns.mode"),
        search=tuple(_list(config.get("dns.search", ""))),
        mtu=int(BRIDGE.value(config, "bridge.mtu")),
        ipv4=ipv4,
        ipv6=ipv6,
        raw=config.get("raw.dnsmasq", ""),
    )
