"""A daemon's network namespace as a host with an outside, and guests whose NICs are looked at from both sides."""

from __future__ import annotations

from typing import Any

from tests.support.daemon import Daemon, unique
from tests.support.namespace import NetworkNamespace
from tests.support.packets import run


class Host:
    """The daemon's network namespace, with an unmanaged bridge `ub0` and an interface `lower0` to an outside."""

    def __init__(self, daemon: Daemon, image: str) -> None:
        assert daemon.netns is not None
        self.daemon = daemon
        self.image = image
        self.net = daemon.netns.path
        self.outside = NetworkNamespace(unique("po")[:12])
        self.run("ip", "link", "add", "ub0", "up", "address", "02:00:00:77:00:01", "type", "bridge")
        self.run("ip", "address", "add", "10.77.0.1/24", "dev", "ub0")
        self.run("ip", "-6", "address", "add", "fd77::1/64", "dev", "ub0", "nodad")
        self.add_lower()

    def add_lower(self) -> None:
        """Make `lower0`, whose other end `up0` is outside and has addresses there."""
        self.run("ip", "link", "add", "lower0", "type", "veth", "peer", "name", "up0", "netns", self.outside.name)
        run(self.outside.path, "ip", "address", "add", "192.0.2.1/24", "dev", "up0")
        run(self.outside.path, "ip", "-6", "address", "add", "2001:db8::1/64", "dev", "up0", "nodad")
        run(self.outside.path, "ip", "link", "set", "up0", "up")
        self.run("ip", "link", "set", "lower0", "up")

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command as the host."""
        return run(self.net, *command, check=check)

    def launch(self, *nics: dict[str, str], **body: Any) -> Guest:
        """Start a guest with these NICs as devices eth0, eth1, ..., which inside are net0, net1, ...

        Its init has DHCP look after eth0.
        """
        devices = {f"eth{n}": {"type": "nic", "name": f"net{n}", **nic} for n, nic in enumerate(nics)}
        return Guest(self, unique("c"), devices, **body)

    def links(self) -> set[str]:
        """Return the names of the host's interfaces."""
        return {line.split(": ")[1].split("@")[0] for line in self.run("ip", "-o", "link").splitlines()}

    def routes(self) -> list[str]:
        """Return the routes that somebody made, of all tables."""
        shown = [self.run("ip", family, "route", "show", "table", "all") for family in ("-4", "-6")]
        return sorted(line for text in shown for line in text.splitlines() if "proto kernel" not in line)

    def rules(self) -> str:
        """Return the host's packet filter."""
        return self.run("nft", "list", "ruleset")

    def close(self) -> None:
        """Remove what the tests made, and see that devices have left nothing."""
        self.daemon.delete_all()
        self.run("ip", "link", "delete", "lower0")
        self.run("ip", "link", "delete", "ub0")
        self.outside.close()


class Guest:
    """A guest of busybox."""

    def __init__(self, host: Host, name: str, devices: dict[str, dict[str, str]], *, start: bool = True) -> None:
        self.host = host
        self.name = name
        self.daemon = host.daemon
        source = {"type": "image", "alias": host.image}
        body = {"name": name, "source": source, "devices": devices, "start": start}
        self.daemon.request("POST", "/1.0/instances", body)

    @property
    def pid(self) -> str:
        return str(self.daemon.request("GET", f"/1.0/instances/{self.name}/state")["pid"])

    @property
    def config(self) -> dict[str, str]:
        config: dict[str, str] = self.daemon.request("GET", f"/1.0/instances/{self.name}")["config"]
        return config

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command of the host's in the guest's network namespace."""
        return run(self.pid, *command, check=check)

    def address(self, *addresses: str, device: str = "net0") -> None:
        """Give the guest addresses, as its root would."""
        for address in addresses:
            nodad = ["nodad"] if ":" in address else []
            self.run("ip", "address", "add", address, "dev", device, *nodad)

    def link(self, name: str = "net0") -> dict[str, Any]:
        """Return what the API tells of an interface."""
        state: dict[str, Any] = self.daemon.request("GET", f"/1.0/instances/{self.name}/state")["network"][name]
        return state

    def change(self, device: str, keys: dict[str, str]) -> None:
        """Change keys of a device, made when it is not there; an empty value unsets one."""
        path = f"/1.0/instances/{self.name}"
        before = self.daemon.request("GET", path)["devices"].get(device, {"type": "nic"})
        after = {key: value for key, value in {**before, **keys}.items() if value}
        self.daemon.request("PATCH", path, {"devices": {device: after}})

    def remove(self, device: str) -> None:
        """Remove a device."""
        self.daemon.command("config", "device", "remove", self.name, device)

    def links(self) -> set[str]:
        """Return the names of its interfaces."""
        return set(self.daemon.request("GET", f"/1.0/instances/{self.name}/state")["network"]) - {"lo"}

    def act(self, action: str, **options: Any) -> None:
        """Start, stop, ..."""
        self.daemon.request("PUT", f"/1.0/instances/{self.name}/state", {"action": action, **options})

    def delete(self) -> None:
        """Delete it while it runs."""
        self.daemon.command("delete", "--force", self.name)
