"""A network namespace of its own for a daemon under test, so that a test's bridges never meet the host's."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

from pylxc.kernel import namespaces

# nsenter keeps the caller's mount namespace; `ip netns exec` would hide /sys/fs/cgroup behind a new /sys.


@contextlib.contextmanager
def entered(path: str) -> Iterator[None]:
    """Have this thread be in the network namespace of a file."""
    with open("/proc/thread-self/ns/net") as own, open(path) as new:
        namespaces.setns(new.fileno(), namespaces.CLONE_NEWNET)
        try:
            yield
        finally:
            namespaces.setns(own.fileno(), namespaces.CLONE_NEWNET)


class NetworkNamespace:
    """A named network namespace with loopback up."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = f"/run/netns/{name}"
        self.outside: NetworkNamespace | None = None
        subprocess.run(["ip", "netns", "add", name], check=True)
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        self.inode = os.stat(self.path).st_ino

    def command(self, *args: str) -> list[str]:
        """Return a command line that runs `args` inside."""
        return ["nsenter", f"--net={self.path}", "--", *args]

    def links(self) -> list[str]:
        """Return the names of the interfaces inside."""
        out = subprocess.run(["ip", "-n", self.name, "-o", "link"], check=True, capture_output=True, text=True).stdout
        return [line.split(": ")[1].split("@")[0] for line in out.splitlines()]

    def rules(self) -> list[str]:
        """Return the lines of the packet filter's rules that are pylxc's."""
        if shutil.which("nft") is None:
            return []
        command = self.command("nft", "list", "ruleset")
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return [line.strip() for line in shown.splitlines() if "pylxc" in line]

    def pids(self) -> list[int]:
        """Return the processes that are in it (not those of containers: they have their own)."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    if os.stat(f"/proc/{entry}/ns/net").st_ino == self.inode:
                        found.append(int(entry))
                except OSError:
                    continue
        return found

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """Have this thread be in it."""
        return entered(self.path)

    def add_outside(self) -> str:
        """Connect it to an `outside` namespace, its default route, and return the address there.

        The outside knows no route back to networks made here: what gets an answer has been translated (NAT).
        """
        self.outside = NetworkNamespace(f"{self.name}-o")
        ip = ["ip", "-n", self.name]
        peer = ["peer", "name", "up0", "netns", self.outside.name]
        subprocess.run([*ip, "link", "add", "up0", "type", "veth", *peer], check=True)
        for namespace, address in ((self, "198.51.100.2/24"), (self.outside, "198.51.100.1/24")):
            subprocess.run(["ip", "-n", namespace.name, "address", "add", address, "dev", "up0"], check=True)
            subprocess.run(["ip", "-n", namespace.name, "link", "set", "up0", "up"], check=True)
        subprocess.run([*ip, "route", "add", "default", "via", "198.51.100.1"], check=True)
        return "198.51.100.1"

    def close(self) -> None:
        """Delete it."""
        if self.outside:
            self.outside.close()
        subprocess.run(["ip", "netns", "delete", self.name], check=True)
