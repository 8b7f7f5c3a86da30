"""Two daemons with a cable between their networks, and Debian's unmodified `lxc`, which both trust."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from tests.support.daemon import POOL_ONLY, Daemon
from tests.support.namespace import NetworkNamespace

ADDRESSES = {"a": "203.0.113.1", "b": "203.0.113.2"}


def connect(one: NetworkNamespace, other: NetworkNamespace) -> None:
    """Lay a cable between two namespaces: the ends have the two addresses, in order."""
    peer = ["peer", "name", "cable0", "netns", other.name]
    subprocess.run(["ip", "-n", one.name, "link", "add", "cable0", "type", "veth", *peer], check=True)
    for namespace, address in zip((one, other), ADDRESSES.values(), strict=True):
        subprocess.run(["ip", "-n", namespace.name, "address", "add", f"{address}/24", "dev", "cable0"], check=True)
        subprocess.run(["ip", "-n", namespace.name, "link", "set", "cable0", "up"], check=True)


class TwoServers:
    """The daemons `a` and `b`, each with a pool and a listener; `lxc` is on a's network and knows both as remotes.

    Attributes:
        env: `lxc`'s environment.
    """

    def __init__(self, directory: str) -> None:
        self.a, self.b = Daemon(), Daemon()
        self.env = {k: v for k, v in os.environ.items() if k not in ("LXD_SOCKET", "PYLXC_DIR")}
        self.env.update(LXD_DIR=self.a.dir, LXD_CONF=directory)

    def start(self, **env: str) -> None:
        """Start the daemons, with more in their environment, and add the remotes."""
        assert self.a.netns
        assert self.b.netns
        connect(self.a.netns, self.b.netns)
        for name, daemon in (("a", self.a), ("b", self.b)):
            daemon.env.update(env)
            daemon.start()
            daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
            daemon.request("PATCH", "/1.0", {"config": {"core.https_address": f"{ADDRESSES[name]}:8443"}})
            self.add_remote(name, daemon)

    def add_remote(self, name: str, daemon: Daemon, **restriction: Any) -> None:
        """Have `lxc` trusted by a daemon, which it then knows as `name`."""
        env = {**self.env, "LXD_DIR": daemon.dir}
        words = ["config", "trust", "add", "--name", name]
        if restriction:
            words += ["--restricted", "--projects", restriction["projects"]]
        added = subprocess.run(["lxc", *words], env=env, check=True, capture_output=True, text=True)
        self.lxc("remote", "add", name, added.stdout.strip().splitlines()[-1])

    def lxc(self, *words: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `lxc WORDS`."""
        assert self.a.netns
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        command = self.a.netns.command("lxc", *words)
        options = {"text": True, "capture_output": True, "timeout": 120, "env": self.env, **options}
        result = subprocess.run(command, check=False, **options)
        assert not check or result.returncode == 0, f"lxc {' '.join(words)}: {result.stdout}{result.stderr}"
        return result

    def close(self) -> list[str]:
        """Stop both; return what was left behind."""
        return [problem for daemon in (self.a, self.b) for problem in daemon.close()]
