"""The commands of docs/networking.md work, in their order."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable

from tests.support.daemon import POOL_AND_BRIDGE, ROOT, Daemon
from tests.support.lan import STATIC, Lan
from tests.support.wait import until


def commands(section: str) -> list[list[str]]:
    """Return the arguments of every pylxc command that a section of the page shows."""
    text = (ROOT / "docs/networking.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("    pylxc ")]


def test_managed_bridges(make_daemon: Callable[..., Daemon], busybox_files: list[str]) -> None:
    daemon = make_daemon()
    daemon.start()
    image = daemon.import_image("busybox", busybox_files)
    shown = {}
    for words in commands("Managed bridges"):
        known = [image if word.startswith("recipe:") else word for word in words]
        shown[" ".join(words)] = daemon.command(*known).stdout
    assert "pylxcbr0" in shown["network list"]
    assert "ipv4.nat: " in shown["network show pylxcbr0"]
    assert "10.213.7.20" in shown["network list-leases br1"]
    assert daemon.netns
    assert "br1" not in daemon.netns.links()


def test_on_your_lan(make_daemon: Callable[..., Daemon], busybox_files: list[str]) -> None:
    daemon = make_daemon()
    lan = Lan(daemon)
    lan.configure_statically()
    before = lan.addresses("eth0"), lan.routes("eth0")
    daemon.start()
    try:
        image = daemon.import_image("busybox", busybox_files)
        for words in commands("On your LAN: br0"):
            daemon.command(*(image if word.startswith("recipe:") else word for word in words))
            if words[:2] == ["network", "create"]:
                assert STATIC in lan.addresses("br0")
            if words[0] == "launch":
                until(lambda: lan.leased("c01"), "it leases an address of the LAN")
        assert (lan.addresses("eth0"), lan.routes("eth0")) == before
    finally:
        lan.close()


def test_waiting(make_daemon: Callable[..., Daemon], busybox_files: list[str]) -> None:
    daemon = make_daemon()
    daemon.start()
    image = daemon.import_image("busybox", busybox_files)
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_AND_BRIDGE})
    daemon.command("network", "create", "br1", "ipv4.address=10.213.7.1/24", "ipv6.address=none")
    background = []
    for words in commands("Waiting until it is ready"):
        known = [image if word.startswith("recipe:") else word for word in words]
        if known[-1] == "&":
            background.append(subprocess.Popen(daemon.command_line(*known[:-1]), env=daemon.env))
        else:
            daemon.command(*known)
    addresses = daemon.request("GET", "/1.0/instances/c02/state")["network"]["eth0"]["addresses"]
    assert "10.213.7.30" in [address["address"] for address in addresses]
    for process in background:
        process.terminate()
        process.wait(20)


def test_reaching_an_instance(make_daemon: Callable[..., Daemon], busybox_files: list[str]) -> None:
    daemon = make_daemon()
    daemon.start()
    image = daemon.import_image("busybox", busybox_files)
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_AND_BRIDGE})
    daemon.command("network", "create", "br1", "ipv4.address=10.213.7.1/24", "ipv6.address=none")
    shown = {}
    for words in commands("Reaching an instance through the host: ports, proxies, forwards"):
        known = [image if word.startswith("recipe:") else word.replace("/run/", f"{daemon.dir}/") for word in words]
        shown[" ".join(words)] = daemon.command(*known).stdout
    assert "tcp:[::]:8080" in shown["port list"]
    assert "target_port: 6000-6009" in shown["network forward show br1 198.51.100.20"]


def test_network_devices(make_daemon: Callable[..., Daemon], busybox_files: list[str]) -> None:
    daemon = make_daemon()
    assert daemon.netns
    subprocess.run(["ip", "-n", daemon.netns.name, "link", "add", "eth1", "type", "veth"], check=True)
    daemon.start()
    image = daemon.import_image("busybox", busybox_files)
    for words in commands("Network devices"):
        daemon.command(*(image if word.startswith("recipe:") else word for word in words))
        if words[-1] == "name=wan0":
            assert "eth1" not in daemon.netns.links()
    assert "eth1" in daemon.netns.links()
    assert "security.ipv4_filtering" in daemon.command("config", "device", "show", "c01").stdout
    daemon.delete_all()
    subprocess.run(["ip", "-n", daemon.netns.name, "link", "delete", "eth1"], check=True)
