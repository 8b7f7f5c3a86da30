"""A real pylxcd on a directory and in a network namespace of its own, and the tools of a test that talks to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from tests.support.leaks import Leaks
from tests.support.namespace import NetworkNamespace

ROOT = Path(__file__).resolve().parents[2]

POOL_ONLY = {
    "storage_pools": [{"name": "default", "driver": "dir"}],
    "profiles": [{"name": "default", "devices": {"root": {"type": "disk", "path": "/", "pool": "default"}}}],
}
"""A preseed: a dir pool, root disks on it, no network."""

POOL_AND_BRIDGE = {
    **POOL_ONLY,
    "networks": [{"name": "pylxcbr0", "type": "bridge"}],
    "profiles": [
        {
            "name": "default",
            "devices": {
                "root": {"type": "disk", "path": "/", "pool": "default"},
                "eth0": {"type": "nic", "name": "eth0", "network": "pylxcbr0"},
            },
        }
    ],
}
"""A preseed: the same with a bridge, as `admin init --auto` makes it on a host that can have no better pool."""


def unique(prefix: str) -> str:
    """Return a name nobody else uses: tests may run twice, or beside each other."""
    return f"{prefix}-{secrets.token_hex(4)}"


class ApiError(Exception):
    """The daemon answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


class Daemon:
    """pylxcd as a subprocess.

    Args:
        base: the directory to make the state directory in; short, as a socket's path has at most 107 bytes.
        host_network: run in the host's network namespace, where the package mirror can be reached.
    """

    open: ClassVar[list[Daemon]] = []
    """Those that have not been closed: what they log is attached to a failed test."""

    def __init__(self, base: str = "/var/tmp", *, host_network: bool = False) -> None:
        tag = secrets.token_hex(3)
        self.dir = f"{base}/pt-{tag}"
        os.mkdir(self.dir, 0o711)
        self.netns = None if host_network else NetworkNamespace(f"pt-{tag}")
        self.env = {k: v for k, v in os.environ.items() if k not in ("LXD_DIR", "LXD_SOCKET", "LXC_TARGET")}
        self.env.update(PYLXC_DIR=self.dir, PYTHONPATH=str(ROOT / "manager"), LXD_CONF=f"{self.dir}/client")
        self.env["PYLXC_CONF"] = f"{self.dir}/client"
        self.module = "pylxc.daemon.main"
        self.log_file = f"{self.dir}/pylxcd.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.leaks = Leaks(self.dir)
        self.open.append(self)
        self._images: dict[str, str] = {}

    # The process.

    def start(
        self,
        *args: str,
        without: str = "",
        instead: str = "/dev/null",
        unmounted: str = "",
        shared_mounts: bool = False,
    ) -> None:
        """Start pylxcd and wait until it answers.

        Args:
            args: further words of its command line.
            without: a program or a path that it shall not find.
            instead: the file that it finds there.
            unmounted: a mount that it shall not see.
            shared_mounts: its mounts propagate to their peers, as they do on a host with systemd.
        """
        command = [sys.executable, "-m", self.module, "--logfile", self.log_file, "--debug", *args]
        if without:
            path = without if without.startswith("/") else f"$(command -v {without})"
            hide = f'mount --bind {instead} "{path}" && exec "$@"'
            command = ["unshare", "--mount", "sh", "-euc", hide, "sh", *command]
        if unmounted:
            hide = f'umount --lazy {unmounted} && exec "$@"'
            command = ["unshare", "--mount", "sh", "-euc", hide, "sh", *command]
        if shared_mounts:
            command = ["unshare", "--mount", "--propagation", "shared", *command]
        if self.netns:
            command = self.netns.command(*command)
        with open(f"{self.dir}/pylxcd.out", "ab") as out:
            self.process = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd="/"
            )
        self.wait_ready()

    def wait_ready(self, timeout: float = 30) -> None:
        """Wait until GET /internal/ready answers; fail at once when the process has ended."""
        assert self.process
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.request("GET", "/internal/ready")
                return
            except (OSError, ApiError, http.client.HTTPException) as error:
                if self.process.poll() is not None:
                    raise AssertionError(f"pylxcd ended with {self.process.returncode}:\n{self.logs()}") from error
                if time.monotonic() > deadline:
                    raise AssertionError(f"pylxcd is not ready after {timeout} s: {error}\n{self.logs()}") from error
                time.sleep(0.02)

    def signal(self, number: int, *, timeout: float = 30) -> int:
        """Send a signal that ends the daemon; return its exit status."""
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def stop(self) -> int:
        """End the daemon, leaving containers alone."""
        return self.signal(signal.SIGTERM)

    def logs(self) -> str:
        """Return what the daemon logged and printed."""
        text = ""
        for path in (self.log_file, f"{self.dir}/pylxcd.out"):
            if os.path.exists(path):
                text += Path(path).read_text(errors="replace")
        return text

    # Its clients.

    def command(self, *args: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `pylxc ARGS`; stdin is empty unless `input` is given."""
        return self._client(self.command_line(*args), check, self.env, options)

    def command_line(self, *args: str) -> list[str]:
        """Return what runs `pylxc ARGS`, in an environment of `env`."""
        # Inside the namespace too: a command that finds no daemon starts one, which must not meet the host's network.
        command = [sys.executable, "-m", "pylxc.cli.main", *args]
        return self.netns.command(*command) if self.netns else command

    def lxc(self, *args: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run Debian's unmodified `lxc ARGS` against this daemon."""
        return self._client(["lxc", *args], check, {**self.env, "LXD_DIR": self.dir}, options)

    def _client(
        self, command: list[str], check: bool, env: dict[str, str], options: dict[str, Any]
    ) -> subprocess.CompletedProcess[str]:
        options.setdefault("timeout", 120)
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("text", True)
        result = subprocess.run(command, env=env, check=False, capture_output=True, **options)
        if check and result.returncode:
            raise AssertionError(f"{command} ended with {result.returncode}\n{result.stdout}{result.stderr}")
        return result

    def request(self, method: str, path: str, body: Any = None, timeout: float = 60) -> Any:
        """Send one API request and return its metadata; wait for an operation and return its metadata.

        Raises:
            ApiError: the daemon answered with an error, or the operation failed.
        """
        answer = self._exchange(method, path, body, timeout)
        return self.wait(answer["operation"], timeout) if answer["type"] == "async" else answer["metadata"]

    def wait(self, operation: str, timeout: float = 60) -> Any:
        """Wait until an operation has ended and return its metadata; raises as `request` does."""
        found = self._exchange("GET", f"{operation}/wait", None, timeout)["metadata"]
        if found["status_code"] != 200:
            raise ApiError(found["status_code"], found["err"])
        return found["metadata"]

    def _exchange(self, method: str, path: str, body: Any, timeout: float) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        return self.parse(self.send(method, path, data, timeout=timeout))

    @staticmethod
    def parse(data: bytes) -> dict[str, Any]:
        """Return an answer's envelope; raises ApiError when it is one of an error."""
        answer: dict[str, Any] = json.loads(data)
        if answer["type"] == "error":
            raise ApiError(answer["error_code"], answer["error"])
        return answer

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> bytes:
        """Send one request as it is and return the answer's body."""
        connection = UnixConnection(f"{self.dir}/unix.socket", timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            return connection.getresponse().read()
        finally:
            connection.close()

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """Open the database, beside the daemon or without it; what is changed counts from the block's end."""
        with contextlib.closing(sqlite3.connect(f"{self.dir}/database/pylxc.db")) as connection, connection:
            yield connection

    # What tests need often.

    def import_image(self, name: str, files: list[str]) -> str:
        """Import image files once under alias `name`; return the alias."""
        if name not in self._images:
            self.command("image", "import", *files, "--alias", name)
            self._images[name] = name
        return name

    def instances(self) -> dict[str, str]:
        """Return every instance's status by name."""
        return {i["name"]: i["status"] for i in self.request("GET", "/1.0/instances?recursion=1")}

    def delete_all(self) -> None:
        """Delete every instance."""
        for name in self.instances():
            self.command("delete", "--force", name)

    def close(self) -> list[str]:
        """Stop everything and remove every trace; return what had been left behind and had to be removed by force.

        Instances are deleted through the daemon and the daemon is shut down by its own command; what is there after
        that is a leak.
        """
        problems: list[str] = []
        if self not in self.open:
            return problems
        self.open.remove(self)
        if self.process:
            if self.process.poll() is None:
                try:
                    self.delete_all()
                except (ApiError, AssertionError, OSError) as error:
                    problems.append(f"instances could not be deleted: {error}")
                self.process.send_signal(signal.SIGPWR)
            try:
                status = self.process.wait(60)
                if status not in (0, -signal.SIGKILL):
                    problems.append(f"pylxcd ended with {status}")
            except subprocess.TimeoutExpired:
                problems.append("pylxcd did not end within 60 s of SIGPWR")
                self.process.kill()
                self.process.wait()
        problems += self.leaks.clean(self.netns)
        if self.netns:
            self.netns.close()
        shutil.rmtree(self.dir)
        return problems


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("pylxc", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
