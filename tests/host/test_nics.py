"""Network devices of running guests, each option by its effect; network namespaces are the outside."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import POOL_ONLY, ApiError, Daemon, unique
from tests.support.nics import Guest, Host
from tests.support.packets import answers, is_silent, megabits
from tests.support.wait import until


@pytest.fixture(scope="module")
def module_host(module_daemon: Daemon, busybox_files: list[str], need: Callable[..., None]) -> Iterator[Host]:
    need("nft", "dnsmasq", "busybox", "ip")
    module_daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    host = Host(module_daemon, module_daemon.import_image("busybox", busybox_files))
    yield host
    host.close()


@pytest.fixture
def host(module_host: Host) -> Iterator[Host]:
    """Return the host; nothing of the test's guests may be left on it."""
    before = module_host.routes()
    yield module_host
    module_host.daemon.delete_all()
    until(lambda: not [n for n in module_host.links() if n.startswith(("veth", "ifb"))], "all interfaces are gone")
    assert ".nic." not in module_host.rules()
    assert module_host.run("ip", "neighbour", "show", "proxy") == ""
    assert module_host.run("ip", "-6", "neighbour", "show", "proxy") == ""
    assert module_host.routes() == before
    devices = f"{module_host.daemon.dir}/run/devices"
    assert not os.path.isdir(devices) or os.listdir(devices) == []


UNMANAGED = {"nictype": "bridged", "parent": "ub0"}


def refused(status: int, text: str, call: Callable[..., Any], *args: Any, **options: Any) -> None:
    with pytest.raises(ApiError) as caught:
        call(*args, **options)
    assert (caught.value.status, text in caught.value.text) == (status, True), caught.value.text
    assert "\n" not in caught.value.text


def test_names_addresses_and_mtu(host: Host) -> None:
    hwaddr = "00:16:3e:aa:bb:01"
    guest = host.launch(UNMANAGED | {"name": "lan0", "hwaddr": hwaddr, "host_name": "hostend0", "mtu": "1300"})
    found = guest.link("lan0")
    assert (found["hwaddr"], found["mtu"], found["host_name"]) == (hwaddr, 1300, "hostend0")
    assert "mtu 1300" in host.run("ip", "link", "show", "hostend0")
    assert "master ub0" in host.run("ip", "link", "show", "hostend0")
    assert "inet6" not in host.run("ip", "address", "show", "hostend0")
    guest.act("restart", force=True)
    assert guest.link("lan0")["host_name"] == "hostend0"
    refused(400, "2-15 characters", guest.change, "eth1", UNMANAGED | {"host_name": "a-name-too-long-for-it"})
    refused(400, "'hostend0' or 'eth0' exists already", guest.change, "eth1", UNMANAGED | {"host_name": "hostend0"})
    assert guest.links() == {"lan0"}
    # Another one may not have the address; on another bridge it may.
    refused(400, f'MAC address "{hwaddr}" already defined', host.launch, UNMANAGED | {"hwaddr": hwaddr})
    host.launch({"nictype": "p2p", "hwaddr": hwaddr})


@pytest.mark.parametrize("nictype", ["bridged", "p2p", "macvlan", "routed"])
def test_names_of_every_kind(host: Host, nictype: str) -> None:
    keys = {"bridged": UNMANAGED, "macvlan": {"parent": "lower0"}}.get(nictype, {})
    guest = host.launch({**keys, "nictype": nictype, "name": "own0", "hwaddr": "00:16:3e:aa:bb:09", "mtu": "1310"})
    found = guest.link("own0")
    assert (found["hwaddr"], found["mtu"]) == ("00:16:3e:aa:bb:09", 1310)


@pytest.mark.parametrize("nictype", ["p2p", "routed"])
def test_limits_of_every_kind(host: Host, nictype: str) -> None:
    own = {"ipv4.routes": "10.94.0.5/32", "ipv6.routes": "fd94::5/128"} if nictype == "p2p" else ROUTED
    guest = host.launch({"nictype": nictype, "host_name": "hostend0", **own})
    address = own["ipv4.routes" if nictype == "p2p" else "ipv4.address"].partition("/")[0]
    if nictype == "p2p":
        guest.address("10.94.0.5/32", "fd94::5/128")
        guest.run("ip", "route", "add", "10.77.0.1", "dev", "net0")
        assert "fd94::5 dev hostend0" in host.run("ip", "-6", "route")
    assert megabits(guest.pid, host.net, "10.77.0.1", at_least=80) > 80
    guest.change("eth0", {"limits.ingress": "40Mbit"})
    assert 30 < megabits(host.net, guest.pid, address, at_least=30) < 50
    guest.change("eth0", {"limits.ingress": "", "limits.egress": "40Mbit"})
    assert 30 < megabits(guest.pid, host.net, "10.77.0.1", at_least=30) < 50
    guest.change("eth0", {"limits.egress": "", "limits.max": "40Mbit"})
    assert megabits(host.net, guest.pid, address) < 50
    assert megabits(guest.pid, host.net, "10.77.0.1") < 50


ROUTED = {"ipv4.address": "10.95.0.5", "ipv6.address": "fd95::5"}


def test_routed_with_all_its_keys(host: Host) -> None:
    """Without a parent, which the other ones need."""
    keys = {
        "ipv4.host_address": "169.254.9.9",
        "ipv6.host_address": "fe80::99",
        "ipv6.routes": "fd96::/64",
        "ipv6.host_table": "78",
        "host_name": "hostend0",
    }
    guest = host.launch({"nictype": "routed", **ROUTED, **keys})
    assert "default via 169.254.9.9" in guest.run("ip", "route")
    assert "default via fe80::99" in guest.run("ip", "-6", "route")
    assert answers(guest.pid, "169.254.9.9")
    assert "fd95::5 dev hostend0" in host.run("ip", "-6", "route", "show", "table", "78")
    assert "fd96::/64 via fd95::5 dev hostend0" in host.run("ip", "-6", "route")
    guest.change("eth0", {"ipv6.gateway": "none"})
    assert "default" not in guest.run("ip", "-6", "route")
    for family, theirs in (("ipv4", "192.0.2.1"), ("ipv6", "2001:db8::1")):
        for where in ("lower0", "all"):
            host.run("sysctl", "-qw", f"net.{family}.conf.{where}.forwarding=1")
        host.run("sysctl", "-qw", "net.ipv6.conf.lower0.proxy_ndp=1", "net.ipv6.conf.all.proxy_ndp=1")
        taken = {"nictype": "routed", "parent": "lower0", f"{family}.address": theirs}
        refused(400, f"{theirs} is in use on the network of 'lower0'", host.launch, taken)
        host.launch({**taken, f"{family}.neighbor_probe": "false"}).delete()


def test_mac_filter(host: Host) -> None:
    guest = host.launch(UNMANAGED)
    guest.address("10.77.0.5/24")
    own = guest.link()["hwaddr"]

    def spoofed(look: Callable[[str, str], bool]) -> bool:
        guest.run("ip", "link", "set", "net0", "address", "00:16:3e:00:00:99")
        host.run("ip", "neighbour", "flush", "dev", "ub0")
        seen = look(guest.pid, "10.77.0.1")
        guest.run("ip", "link", "set", "net0", "address", own)
        host.run("ip", "neighbour", "flush", "dev", "ub0")
        return seen

    assert spoofed(answers)
    guest.change("eth0", {"security.mac_filtering": "true"})
    assert spoofed(is_silent)
    assert answers(guest.pid, "10.77.0.1")
    # A daemon that has come back puts the rules again when another program flushes them.
    guest.daemon.stop()
    guest.daemon.start()
    host.run("nft", "flush", "ruleset")
    until(lambda: ".nic." in host.rules(), "the rules are there again")
    assert spoofed(is_silent)
    guest.change("eth0", {"security.mac_filtering": ""})
    assert spoofed(answers)
    assert ".nic." not in host.rules()


@pytest.mark.parametrize(
    ("family", "own", "other", "gateway", "routed", "far"),
    [
        ("ipv4", "10.77.0.5", "10.77.0.6", "10.77.0.1", "10.78.0.0/24", "10.78.0.9"),
        ("ipv6", "fd77::5", "fd77::6", "fd77::1", "fd78::/64", "fd78::9"),
    ],
)
def test_address_filters(host: Host, family: str, own: str, other: str, gateway: str, routed: str, far: str) -> None:
    keys = {f"security.{family}_filtering": "true", f"{family}.address": own, f"{family}.routes": routed}
    guest = host.launch(UNMANAGED | keys)
    bits = 24 if family == "ipv4" else 64
    guest.address(f"{own}/{bits}", f"{other}/{bits}", f"{far}/{bits}")
    assert answers(guest.pid, gateway, own)
    assert is_silent(guest.pid, gateway, other)
    assert answers(guest.pid, gateway, far)
    # Nor does it answer when it is asked for an address that is not its own.
    assert answers(host.net, own)
    assert is_silent(host.net, other)
    guest.change("eth0", {f"{family}.address": other})
    assert answers(guest.pid, gateway, other)
    host.run("ip", "neighbour", "flush", "dev", "ub0")
    assert is_silent(guest.pid, gateway, own)
    guest.change("eth0", dict.fromkeys(keys, ""))
    assert answers(guest.pid, gateway, own)


def test_filtered_nic_of_a_managed_network_keeps_its_address(host: Host) -> None:
    host.daemon.request("POST", "/1.0/networks", {"name": "nf0", "config": {"ipv4.address": "10.79.0.1/24"}})
    try:
        guest = host.launch({"network": "nf0", "security.ipv4_filtering": "true"})
        static = [x["address"] for x in host.daemon.request("GET", "/1.0/networks/nf0/leases") if x["type"] == "static"]
        assert len(static) == 1
        guest.run("busybox", "udhcpc", "-i", "net0", "-n", "-q", "-t", "5", "-T", "1", "-s", "/bin/true")
        guest.address(f"{static[0]}/24", "10.79.0.200/24")
        assert answers(guest.pid, "10.79.0.1", static[0])
        assert is_silent(guest.pid, "10.79.0.1", "10.79.0.200")
        guest.act("restart", force=True)
        assert static[0] in str(host.daemon.request("GET", "/1.0/networks/nf0/leases"))
        again = host.launch({"network": "nf0", "security.ipv4_filtering": "true"})
        taken = {"ipv4.address": static[0]}
        refused(400, "not within", again.change, "eth0", {"ipv4.address": "10.80.0.5"})
        guest.change("eth0", taken)
        refused(400, f'IP address "{static[0]}" already defined on another NIC', again.change, "eth0", taken)
    finally:
        host.daemon.delete_all()
        host.daemon.request("DELETE", "/1.0/networks/nf0")


def test_port_isolation(host: Host) -> None:
    first, second, third = (
        host.launch(UNMANAGED | {"security.port_isolation": isolated}) for isolated in ("true", "true", "false")
    )
    for number, guest in enumerate((first, second, third), start=5):
        guest.address(f"10.77.0.{number}/24")
    assert answers(first.pid, "10.77.0.1")
    assert answers(first.pid, "10.77.0.7")
    assert is_silent(first.pid, "10.77.0.6")
    second.change("eth0", {"security.port_isolation": ""})
    second.address("10.77.0.6/24")
    assert answers(first.pid, "10.77.0.6")


def test_limits(host: Host) -> None:
    guest = host.launch(UNMANAGED | {"limits.ingress": "40Mbit"})
    guest.address("10.77.0.5/24")
    assert 30 < megabits(host.net, guest.pid, "10.77.0.5", at_least=30) < 50
    assert megabits(guest.pid, host.net, "10.77.0.1", at_least=80) > 80
    guest.change("eth0", {"limits.ingress": "", "limits.egress": "40Mbit"})
    assert megabits(host.net, guest.pid, "10.77.0.5", at_least=80) > 80
    assert 30 < megabits(guest.pid, host.net, "10.77.0.1", at_least=30) < 50
    guest.change("eth0", {"limits.egress": "", "limits.max": "40Mbit"})
    assert 30 < megabits(host.net, guest.pid, "10.77.0.5", at_least=30) < 50
    assert 30 < megabits(guest.pid, host.net, "10.77.0.1", at_least=30) < 50
    guest.change("eth0", {"limits.max": ""})
    assert megabits(guest.pid, host.net, "10.77.0.1", at_least=80) > 80
    refused(400, "Invalid rate", guest.change, "eth0", {"limits.max": "0Mbit"})


def test_routes(host: Host) -> None:
    guest = host.launch(UNMANAGED | {"ipv4.routes": "10.90.0.0/24, 10.91.0.0/24", "ipv6.routes": "fd90::/64"})
    guest.address("10.77.0.5/24", "10.90.0.1/32", "10.91.0.1/32")
    assert answers(host.net, "10.90.0.1")
    assert "fd90::/64 dev ub0" in host.run("ip", "-6", "route")
    # Another one may not have the same; the first keeps what it has.
    refused(400, "10.90.0.0/24 exists already", host.launch, UNMANAGED | {"ipv4.routes": "10.90.0.0/24"})
    second = host.launch(UNMANAGED)
    refused(400, "10.90.0.0/24 exists", second.change, "eth0", {"ipv4.routes": "10.92.0.0/24,10.90.0.0/24"})
    assert "10.92.0.0" not in host.run("ip", "route")
    assert answers(host.net, "10.90.0.1")
    guest.change("eth0", {"ipv4.routes": "10.91.0.0/24"})
    assert is_silent(host.net, "10.90.0.1")
    assert answers(host.net, "10.91.0.1")


def test_p2p(host: Host) -> None:
    guest = host.launch({"nictype": "p2p", "host_name": "p2pend", "ipv4.routes": "10.93.0.5/32"})
    guest.address("10.93.0.5/32")
    guest.run("ip", "route", "add", "10.77.0.1", "dev", "net0")
    assert answers(host.net, "10.93.0.5", "10.77.0.1")
    guest.change("eth0", {"ipv4.routes": "10.93.1.0/24"})
    assert "10.93.1.0/24 dev p2pend" in host.run("ip", "route")
    guest.remove("eth0")
    assert "p2pend" not in host.links()


def test_macvlan(host: Host) -> None:
    lower = {"nictype": "macvlan", "parent": "lower0"}
    guest = host.launch(lower | {"mtu": "1400"})
    assert guest.link()["mtu"] == 1400
    guest.address("192.0.2.5/24")
    assert answers(guest.pid, "192.0.2.1")
    before = host.links()
    if has_kernel("CONFIG_VLAN_8021Q"):
        guest.change("eth1", lower | {"vlan": "7", "gvrp": "true"})
        assert "lower0.7" in host.links()
        guest.remove("eth1")
    else:
        refused(501, "needs a kernel with CONFIG_VLAN_8021Q", guest.change, "eth1", lower | {"vlan": "7"})
    assert host.links() == before
    refused(400, "'nowhere0' does not exist", guest.change, "eth1", lower | {"parent": "nowhere0"})
    taken = host.run("ip", "-o", "link", "show", "lower0").split("link/ether")[1].split()[0]
    refused(500, "Failed attaching network device 'eth1'", guest.change, "eth1", lower | {"hwaddr": taken})
    assert guest.links() == {"net0"}
    # The interface is unplugged: the guest goes on without, and lets itself be changed and stopped.
    host.run("ip", "link", "delete", "lower0")
    try:
        assert guest.links() == set()
        guest.remove("eth0")
    finally:
        host.add_lower()


def test_vlans_of_a_bridge(host: Host) -> None:
    tagged = UNMANAGED | {"vlan": "5", "vlan.tagged": "10-12,20"}
    refused(400, "cannot be the same", host.launch, UNMANAGED | {"vlan": "11", "vlan.tagged": "10-12"})
    refused(400, "Invalid value for vlan.tagged", host.launch, UNMANAGED | {"vlan.tagged": "12-10"})
    refused(400, "IP filtering cannot be used with VLAN filtering", host.launch,
            tagged | {"security.ipv4_filtering": "true", "ipv4.address": "10.77.0.5"})  # fmt: skip
    refused(400, "VLAN filtering is not enabled on bridge 'ub0'", host.launch, tagged)
    if has_kernel("CONFIG_BRIDGE_VLAN_FILTERING"):
        host.run("ip", "link", "set", "ub0", "type", "bridge", "vlan_filtering", "1")
        guest = host.launch(tagged)
        shown = host.run("bridge", "vlan", "show", "dev", guest.link()["host_name"])
        assert "5 PVID Egress Untagged" in shown
        assert all(f" {vlan}\n" in shown for vlan in (10, 11, 12, 20))
        host.run("ip", "link", "set", "ub0", "type", "bridge", "vlan_filtering", "0")


def has_kernel(option: str) -> bool:
    """Return whether the kernel is built with an option."""
    shown = subprocess.run(["sh", "-c", "zcat /proc/config.gz || cat /boot/config-$(uname -r)"],
                           capture_output=True, text=True, check=False).stdout  # fmt: skip
    return f"{option}=y" in shown or f"{option}=m" in shown


class TestPhysical:
    """An interface of the host that a guest has: whatever happens, the host gets it back as it was."""

    NIC: dict[str, str] = {"nictype": "physical", "parent": "lower0", "name": "wan0", "mtu": "1400",
                           "hwaddr": "00:16:3e:12:34:56"}  # fmt: skip

    @pytest.fixture
    def guest(self, host: Host) -> Iterator[Guest]:
        shown = host.run("ip", "-o", "link", "show", "lower0")
        index, hwaddr = shown.split(":")[0], shown.split("link/ether")[1].split()[0]
        guest = host.launch(self.NIC)
        found = guest.link("wan0")
        assert (found["mtu"], found["hwaddr"]) == (1400, "00:16:3e:12:34:56")
        assert "lower0" not in host.links()
        guest.address("192.0.2.5/24", device="wan0")
        assert answers(guest.pid, "192.0.2.1")
        yield guest
        until(lambda: "lower0" in host.links(), "the interface is back")
        shown = host.run("ip", "-o", "link", "show", "lower0")
        assert shown.split(":")[0] == index
        assert f"link/ether {hwaddr}" in shown
        assert "mtu 1500" in shown
        host.run("ip", "link", "set", "lower0", "up")

    def test_stop(self, guest: Guest) -> None:
        guest.act("stop", force=True)

    def test_removed_though_another_is_passed_off_as_it(self, guest: Guest) -> None:
        guest.run("ip", "link", "set", "wan0", "down")
        guest.run("ip", "link", "set", "wan0", "name", "mine", "address", "00:16:3e:00:00:99")
        guest.run("ip", "link", "add", "wan0", "address", self.NIC["hwaddr"], "type", "veth", "peer", "name", "wan1")
        guest.remove("eth0")
        assert guest.links() == {"wan0", "wan1"}

    def test_poweroff_while_the_daemon_is_killed(self, guest: Guest) -> None:
        process = os.pidfd_open(int(guest.pid))
        guest.daemon.signal(signal.SIGKILL)
        signal.pidfd_send_signal(process, signal.SIGKILL)
        os.close(process)
        guest.daemon.start()

    def test_monitor_killed(self, guest: Guest) -> None:
        stat = Path(f"/proc/{guest.pid}/stat").read_text()
        os.kill(int(stat.rsplit(")", 1)[1].split()[1]), signal.SIGKILL)

    def test_taken_by_another(self, guest: Guest) -> None:
        refused(400, "'lower0' does not exist", guest.host.launch, self.NIC)
        guest.act("stop", force=True)


@pytest.mark.parametrize("nictype", ["physical", "macvlan"])
def test_ports_of_bridges_stay_there(host: Host, nictype: str) -> None:
    host.run("ip", "link", "set", "lower0", "master", "ub0")
    try:
        refused(400, "'lower0' is part of a bridge", host.launch, {"nictype": nictype, "parent": "lower0"})
    finally:
        host.run("ip", "link", "set", "lower0", "nomaster")


def test_routed(host: Host) -> None:
    for key in ("net.ipv4.conf.lower0.forwarding", "net.ipv4.ip_forward"):
        host.run("sysctl", "-qw", f"{key}=0")
    nic = {"nictype": "routed", "parent": "lower0", "ipv4.address": "192.0.2.50", "ipv6.address": "2001:db8::50"}
    refused(400, "net/ipv4/conf/lower0/forwarding = 1", host.launch, nic)
    for family, where in (("ipv4", "lower0"), ("ipv6", "lower0"), ("ipv6", "all")):
        host.run("sysctl", "-qw", f"net.{family}.conf.{where}.forwarding=1")
        host.run("sysctl", "-qw", f"net.ipv6.conf.{where}.proxy_ndp=1")
    host.run("ip", "address", "add", "192.0.2.9/24", "dev", "lower0")
    host.run("ip", "-6", "address", "add", "2001:db8::9/64", "dev", "lower0", "nodad")
    refused(400, "192.0.2.1 is in use on the network of 'lower0'", host.launch, nic | {"ipv4.address": "192.0.2.1"})
    try:
        guest = host.launch(nic | {"ipv4.routes": "198.51.100.0/28", "ipv4.host_table": "77"})
        assert "192.0.2.50 dev veth" in host.run("ip", "route", "show", "table", "77")
        assert answers(host.outside.path, "192.0.2.50")
        assert answers(guest.pid, "192.0.2.1")
        assert answers(host.outside.path, "2001:db8::50")
        assert answers(guest.pid, "169.254.0.1")
        assert "198.51.100.0/28 via 192.0.2.50" in host.run("ip", "route")
        # It can use no other address.
        guest.address("192.0.2.60/32")
        assert is_silent(guest.pid, "192.0.2.9", "192.0.2.60")
        guest.change("eth0", {"limits.egress": "10Mbit"})
        assert answers(guest.pid, "192.0.2.1")
        guest.change("eth0", {"ipv4.gateway": "none", "limits.egress": ""})
        assert is_silent(guest.pid, "192.0.2.1")
        guest.remove("eth0")
        assert "192.0.2.50" not in host.run("ip", "neighbour", "show", "proxy") + host.run("ip", "route")
    finally:
        host.daemon.delete_all()
        host.run("ip", "address", "flush", "dev", "lower0")


def test_ipvlan(host: Host) -> None:
    nic = {"nictype": "ipvlan", "parent": "lower0", "ipv4.address": "192.0.2.70"}
    host.run("sysctl", "-qw", "net.ipv4.conf.lower0.forwarding=0")
    refused(400, "net/ipv4/conf/lower0/forwarding = 1", host.launch, nic)
    host.run("sysctl", "-qw", "net.ipv4.conf.lower0.forwarding=1")
    if not has_kernel("CONFIG_IPVLAN"):
        refused(400, "needs a kernel with CONFIG_IPVLAN", host.launch, nic)
        return
    guest = host.launch(nic)
    host.run("ip", "address", "add", "192.0.2.9/24", "dev", "lower0")
    try:
        assert answers(host.outside.path, "192.0.2.70")
        assert answers(guest.pid, "192.0.2.1")
    finally:
        host.daemon.delete_all()
        host.run("ip", "address", "flush", "dev", "lower0")


def test_parents_of_the_host_by_n(host: Host) -> None:
    for parent, nictype in (("ub0", "bridged"), ("lower0", "macvlan")):
        name = unique("c")
        host.daemon.command("launch", host.image, name, "-n", parent)
        device = host.daemon.request("GET", f"/1.0/instances/{name}")["expanded_devices"]["eth0"]
        assert (device["nictype"], device["parent"]) == (nictype, parent)


@pytest.mark.parametrize("nictype", ["sriov", "ovn"])
def test_what_is_not_supported_is_named(host: Host, nictype: str) -> None:
    refused(501, f"nictype={nictype} are not supported", host.launch, {"nictype": nictype, "parent": "lower0"})
