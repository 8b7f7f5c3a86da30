"""A container manager under measurement: its daemon, on a directory and in a network of its own, and its command."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from tests.support.daemon import UnixConnection
from tests.support.leaks import Leaks
from tests.support.namespace import NetworkNamespace

Samples = dict[str, float]
"""Seconds or MiB by row."""


class Server(ABC):
    """What pylxc and LXD have in common; subclasses say how the daemon is started and which process is a monitor.

    Args:
        name: "pylxc" or "lxd", for names and the report.
        cli: the command's path.
        env: what the environment needs to have so that the command finds this daemon; DIR is replaced.
    """

    def __init__(self, name: str, cli: str, env: dict[str, str]) -> None:
        tag = secrets.token_hex(3)
        self.name = name
        self.cli = cli
        self.dir = f"/var/tmp/bench-{name}-{tag}"
        os.mkdir(self.dir, 0o711)
        self.netns = NetworkNamespace(f"b{name}-{tag}")
        clean = {k: v for k, v in os.environ.items() if k not in ("LXD_DIR", "LXD_SOCKET", "PYLXC_DIR")}
        self.env = {**clean, **{k: v.replace("DIR", self.dir) for k, v in env.items()}}
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @abstractmethod
    def start(self) -> None:
        """Start the daemon and wait until it answers."""

    def stop(self) -> None:
        """Stop the instances and the daemon, as when the host goes down.

        Raises:
            RuntimeError: it does not end.
        """
        assert self.process
        self.quit()
        try:
            self.process.wait(300)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{self.name} does not end") from error

    def get(self, path: str) -> Any:
        """Return the metadata of a GET, which is asked without a command's start-up."""
        connection = UnixConnection(f"{self.dir}/unix.socket", 60)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())["metadata"]
        finally:
            connection.close()

    def spawn(self, *command: str) -> None:
        """Start the daemon."""
        with open(f"{self.dir}/daemon.out", "ab") as out:
            self.process = subprocess.Popen(
                self.netns.command(*command), env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def run(self, *args: str, stdin: str | None = None) -> str:
        """Run the command; return what it printed.

        Raises:
            RuntimeError: it failed.
        """
        result = subprocess.run(
            [self.cli, *args],
            env=self.env,
            input=stdin or "",
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if result.returncode:
            raise RuntimeError(f"{self.name} {' '.join(args)}: {result.stderr.strip() or result.returncode}")
        return result.stdout

    def time(self, *args: str, inside: bool = False, cli: str = "") -> float:
        """Return the seconds that the command takes as a whole process.

        Args:
            args: its words.
            inside: it runs in the daemon's network.
            cli: another command's path.
        """
        command = [cli or self.cli, *args]
        if inside:
            command = self.netns.command(*command)
        # No timeout here: with one, Python polls for the end in growing steps of up to 50 ms.
        begin = time.perf_counter()
        subprocess.run(command, env=self.env, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begin

    @abstractmethod
    def preseed(self) -> None:
        """Give it one dir pool, one bridge and the default profile: the same for both."""

    @abstractmethod
    def monitor_pids(self, instance: str) -> list[int]:
        """Return the processes that the manager keeps per running instance."""

    @abstractmethod
    def quit(self) -> None:
        """End the daemon and its containers by its own command."""

    def close(self) -> None:
        """Tear everything down and remove it."""
        if self.process and self.process.poll() is None:
            self.quit()
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for line in Leaks(self.dir).clean(self.netns):
            print(f"{self.name} left behind: {line}")
        self.netns.close()
        shutil.rmtree(self.dir)


PRESEED = """
storage_pools:
- name: default
  driver: dir
networks:
- name: {bridge}
  type: bridge
  config: {{ipv4.address: 10.99.0.1/22, ipv4.nat: "false", ipv6.address: none}}
profiles:
- name: default
  devices:
    root: {{type: disk, path: /, pool: default}}
    eth0: {{type: nic, network: {bridge}, name: eth0}}
"""


def pss_bytes(pid: int) -> int:
    """Return a process's proportional memory. See: proc_pid_smaps(5)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no Pss of {pid}")
