"""Networks' services in a network namespace that plays the host, and guests with a NIC on their bridges."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pylxc.db.migrate import open_database
from pylxc.kernel import namespaces
from pylxc.paths import Paths
from pylxc.runtime.handle import Runtime
from pylxc.runtime.proxies import Proxies
from pylxc.services.events import EventBus
from pylxc.services.instances.devices import DeviceManager
from pylxc.services.networks.service import Networks
from pylxc.services.operations import Operations
from pylxc.services.storage.service import StoragePools
from pylxc.services.volumes.service import CustomVolumes
from tests.support.namespace import entered
from tests.support.wait import until

_DHCP_SCRIPT = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
ip route add default via "$router"
echo "ip=$ip router=$router dns=$dns domain=$domain lease=$lease search=$search mtu=$mtu"
"""


class Guest:
    """A network namespace with a process in it, as a container has one, and the NICs of an instance."""

    def __init__(self, host: NetworkHost, name: str, device: Mapping[str, str] | None = None) -> None:
        self.host = host
        self.name = name
        self.devices = {"eth0": {"type": "nic", "name": "eth0", "network": "br0", **(device or {})}}
        self.process = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        self.own = namespaces.identity("net")
        until(lambda: namespaces.identity("net", self.process.pid) != self.own, "the namespace is there")
        self.config = host.devices.volatile(name, self.devices, {})
        self.run_config = host.devices.start("default", name, self.devices, self.config)
        self.config |= self.run_config.volatile
        host.devices.attach(self.run_config, self.process.pid)

    @property
    def hwaddr(self) -> str:
        return self.run_config.nics[0].hwaddr

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command in the namespace and return what it prints."""
        inside = ["nsenter", "-t", str(self.process.pid), "-n", "--", *command]
        done = subprocess.run(inside, capture_output=True, text=True, check=False, timeout=30)
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def dhcp(self, hostname: str = "") -> dict[str, str]:
        """Lease an address and configure it; return what the server said."""
        wanted = ("-x", f"hostname:{hostname}") if hostname else ()
        client = (
            "busybox",
            "udhcpc",
            "-O",
            "search",
            "-O",
            "mtu",
            "-i",
            "eth0",
            "-n",
            "-q",
            "-f",
            "-t",
            "10",
            "-T",
            "1",
        )
        printed = self.run(*client, *wanted, "-s", str(self.host.script))
        line = next(text for text in printed.splitlines() if text.startswith("ip="))
        return dict(word.partition("=")[::2] for word in line.split())

    def resolve(self, name: str, kind: str = "a") -> str:
        """Ask the bridge's DNS for a name; return everything that nslookup prints."""
        return self.run("busybox", "nslookup", f"-type={kind}", name, self.host.gateway, check=False)

    def pings(self, address: str) -> bool:
        """Return whether an address answers within a second."""
        return " 0% packet loss" in self.run("busybox", "ping", "-c1", "-W1", address, check=False)

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """Have this thread be in the namespace."""
        return entered(f"/proc/{self.process.pid}/ns/net")

    def close(self) -> None:
        """End the process; the interfaces go with it."""
        self.process.kill()
        self.process.wait()


class NetworkHost:
    """Services in a network namespace that plays the host."""

    def __init__(self, directory: Path) -> None:
        self.paths = Paths(str(directory))
        self.script = directory / "udhcpc.script"
        self.script.write_text(_DHCP_SCRIPT)
        self.script.chmod(0o755)
        self.db = open_database(self.paths.database)
        self.open()
        self.guests: list[Guest] = []

    def open(self) -> None:
        """Start the services as a daemon does."""
        self.networks = Networks(self.db, self.paths, EventBus())
        self.networks.start()
        events = EventBus()
        storage = StoragePools(self.db, self.paths, events)
        volumes = CustomVolumes(self.db, storage, Operations(events), events)
        proxies = Proxies(self.paths, Runtime(self.paths, lambda *_: None))  # asked for nothing, never opened
        self.devices = DeviceManager(self.db, self.paths, self.networks, storage, volumes, proxies)

    def create(self, name: str = "br0", **config: str) -> None:
        """Make a network; `ipv4_address` is the key ipv4.address."""
        keys = {key if "." in key else key.replace("_", "."): value for key, value in config.items()}
        self.networks.create(name, "bridge", keys)

    @property
    def gateway(self) -> str:
        return self.networks.get("br0")["config"]["ipv4.address"].partition("/")[0]

    def guest(self, name: str, device: Mapping[str, str] | None = None) -> Guest:
        """Return a new guest with a NIC on br0."""
        self.guests.append(Guest(self, name, device))
        return self.guests[-1]

    def find(self, name: str) -> Guest:
        """Return the guest of that name."""
        return next(guest for guest in self.guests if guest.name == name)

    def dnsmasq(self, but: int = 0) -> int:
        """Return the only dnsmasq of this directory, another one than `but`, once it is there."""
        return until(lambda: len(found := self.dnsmasqs()) == 1 and found[0] != but and found[0], "one dnsmasq runs")

    def dnsmasqs(self) -> list[int]:
        """Return the dnsmasq processes of this directory that serve; one that starts is two or three for a moment."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    command = Path(f"/proc/{entry}/cmdline").read_bytes()
                except OSError:
                    continue
                if command.startswith(b"dnsmasq\0--conf-file=") and f"{self.paths.networks}/".encode() in command:
                    found.append(int(entry))
        return found


def output(*command: str) -> str:
    """Run a command and return what it prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def links() -> list[str]:
    """Return the names of the interfaces of this thread's network namespace."""
    return [line.split(": ")[1].split("@")[0] for line in output("ip", "-o", "link").splitlines()]
