"""A network of namespaces that a daemon's host is a machine of: a switch, a router with DHCP, an outside machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.support.daemon import Daemon
from tests.support.namespace import NetworkNamespace
from tests.support.wait import until

GATEWAY, OUTSIDE, STATIC = "203.0.113.1", "203.0.113.50", "203.0.113.7"

# What Debian's udhcpc does with a lease, for a host that has nothing but this interface.
_UDHCPC = """#!/bin/sh
case "$1" in
deconfig) ip -4 address flush dev "$interface"; ip link set "$interface" up ;;
bound|renew)
    ip address replace "$ip/$mask" dev "$interface" valid_lft "$lease" preferred_lft "$lease"
    ip route replace default via "$router" dev "$interface" proto dhcp src "$ip" metric 100 ;;
esac
"""


class Lan:
    """The network 203.0.113.0/24 and 2001:db8:1::/64, with a daemon's namespace as one of its machines, on `eth0`."""

    def __init__(self, daemon: Daemon) -> None:
        assert daemon.netns
        self.host = daemon.netns
        self.directory = tempfile.mkdtemp(prefix="lan-", dir=daemon.dir)
        self.router = NetworkNamespace(f"{self.host.name}-r")
        self.outside = NetworkNamespace(f"{self.host.name}-w")
        # Who does not forward is no router, whatever it advertises: hosts drop it when it next answers them.
        _run(*self.router.command("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"))
        ip = ("ip", "-n", self.router.name)
        _run(*ip, "link", "add", "switch", "type", "bridge", "forward_delay", "0")
        _run(*ip, "link", "set", "switch", "up")
        for address in (f"{GATEWAY}/24", "2001:db8:1::1/64"):
            _run(*ip, "address", "add", address, "dev", "switch", *(["nodad"] if ":" in address else []))
        for machine, port in ((self.host, "host"), (self.outside, "outside")):
            peer = ("peer", "name", "eth0", "netns", machine.name)
            _run(*ip, "link", "add", port, "master", "switch", "type", "veth", *peer)
            _run(*ip, "link", "set", port, "up")
        _run("ip", "-n", self.outside.name, "address", "add", f"{OUTSIDE}/24", "dev", "eth0")
        _run("ip", "-n", self.outside.name, "link", "set", "eth0", "up")
        _run("ip", "-n", self.outside.name, "route", "add", "default", "via", GATEWAY)
        self._dnsmasq = subprocess.Popen(
            self.router.command(
                "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--pid-file=",
                "--interface=switch", "--bind-dynamic", "--dhcp-authoritative", "--dhcp-no-override",
                "--dhcp-range=203.0.113.100,203.0.113.199,10m", f"--dhcp-leasefile={self.directory}/leases",
                "--log-facility=-", "--enable-ra", "--dhcp-range=2001:db8:1::,ra-only,64,10m",
            ),
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def run_on_host(self, *command: str, check: bool = True) -> str:
        """Run a command in the host's namespace and return what it prints."""
        return _run(*self.host.command(*command), check=check)

    def run_outside(self, *command: str, check: bool = True) -> str:
        """Run a command on the outside machine and return what it prints."""
        return _run(*self.outside.command(*command), check=check)

    def configure_statically(self) -> None:
        """Give the host's eth0 a bit of everything that an administrator may have put there."""
        ip = ("ip", "-n", self.host.name)
        self.hear_no_advertisements()
        _run(*ip, "link", "set", "eth0", "up")
        for words in (
            f"address add {STATIC}/24 dev eth0",
            "address add 203.0.113.8/24 dev eth0 label eth0:extra",
            "address add 198.51.100.9/32 dev eth0 scope link",
            "address add 2001:db8:1::7/64 dev eth0 nodad",
            "address add 2001:db8:1::8/64 dev eth0 nodad valid_lft 3600 preferred_lft 1800",
            f"route add default via {GATEWAY} dev eth0 src {STATIC} metric 50",
            "route add 192.0.2.0/24 via 203.0.113.3 metric 70",
            "route add 198.18.0.0/16 nexthop via 203.0.113.1 weight 1 nexthop via 203.0.113.3 weight 2",
            "route add 192.0.2.128/25 dev eth0 table 77",
            "-6 route add default via 2001:db8:1::1 dev eth0 metric 512",
            "-6 route add 2001:db8:9::/48 via 2001:db8:1::2 dev eth0 proto ra expires 900",
            "neighbour add 203.0.113.99 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
        ):
            _run(*ip, *words.split())
        until(lambda: "tentative" not in _run(*ip, "address", "show", "dev", "eth0"), "the addresses are usable")

    def hear_no_advertisements(self) -> None:
        """Have the host's eth0 learn nothing from the router."""
        self.run_on_host("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_ra")

    def configure_by_dhcp(self) -> None:
        """Have udhcpc lease an address for the host's eth0, and the kernel learn IPv6 by router advertisements."""
        self.run_on_host("ip", "link", "set", "eth0", "up")
        until(lambda: '"protocol": "ra"' in self.facts() and "mngtmpaddr" in self.facts(), "the router tells of itself")
        until(lambda: "tentative" not in self.facts(), "the addresses are usable")
        script = Path(self.directory, "udhcpc.script")
        script.write_text(_UDHCPC)
        script.chmod(0o755)
        client = ("busybox", "udhcpc", "-i", "eth0", "-s", str(script), "-p", f"{self.directory}/udhcpc.eth0.pid", "-b")
        _run(*self.host.command(*client), "-t", "20", "-T", "1", "-A", "1")
        until(lambda: self.addresses("eth0"), "the host has leased an address")

    def addresses(self, interface: str) -> list[str]:
        """Return the host's IPv4 addresses on an interface."""
        shown: list[dict[str, Any]] = json.loads(_run("ip", "-n", self.host.name, "-j", "-4", "address"))
        return [a["local"] for link in shown if link["ifname"] == interface for a in link["addr_info"]]

    def facts(self) -> str:
        """Return everything that the host has on its network, without the seconds of lifetimes, which run."""
        ip = ("ip", "-n", self.host.name, "-j", "-d")
        shown = [_run(*ip, "address")]
        shown += [_run(*ip, family, "route", "show", "table", "all") for family in ("-4", "-6")]
        shown.append(_run("ip", "-n", self.host.name, "-j", "neighbour", "show", "nud", "permanent"))
        entries = [json.dumps(entry, indent=1) for one in shown for entry in json.loads(one or "[]")]
        lifetimes = re.compile(r'("(?:valid_life_time|preferred_life_time|expires)": )(?!4294967295)\d+')
        return "\n".join(lifetimes.sub(r"\1some", entry) for entry in entries)

    def routes(self, interface: str) -> list[str]:
        """Return the host's routes by an interface, sorted, without how long they last; table local is the kernel's."""
        shown = [
            json.loads(_run("ip", "-n", self.host.name, "-j", f, "route", "show", "table", "all")) for f in ("-4", "-6")
        ]
        found = [{k: v for k, v in route.items() if k != "expires"} for routes in shown for route in routes]
        return sorted(
            json.dumps(route) for route in found if route.get("dev") == interface and route.get("table") != "local"
        )

    def dhcp_clients(self) -> list[str]:
        """Return the command lines of the DHCP clients in the host's namespace."""
        lines = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in self.host.pids()]
        return [line for line in lines if " udhcpc -i " in line]  # not its script

    def leased(self, name: str) -> str:
        """Return the address that the LAN's server has given to a machine of that name, empty for none."""
        fields = (line.split() for line in Path(self.directory, "leases").read_text().splitlines())
        return next((field[2] for field in fields if len(field) > 3 and field[3] == name), "")

    def cut(self) -> None:
        """Have the network answer no more to what comes out of a bridge of the host, as a switch with locked ports."""
        rule = "add table bridge cut; add chain bridge cut in { type filter hook prerouting priority 0; policy drop; }"
        self.run_on_host("nft", rule)

    def mend(self) -> None:
        """Undo `cut`."""
        self.run_on_host("nft", "delete table bridge cut")

    def close(self) -> None:
        """End what runs and delete the namespaces but the host's."""
        self._dnsmasq.kill()
        self._dnsmasq.wait()
        for pid in self.host.pids():
            if b"udhcpc" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        self.outside.close()
        self.router.close()
        shutil.rmtree(self.directory)


def _run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if check and done.returncode:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
