"""Instances: their life, their configuration, commands in them."""

from __future__ import annotations

import os

from pylxc.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.client.client import Client, Reply
    from pylxc.client.files import Files
    from pylxc.client.operations import Operation
    from pylxc.client.snapshots import Snapshots


class ExecResult:
    """What a command left: `code` (exit status), `stdout` and `stderr` (bytes)."""

    __slots__ = ("code", "stderr", "stdout")

    def __init__(self, code: int, stdout: bytes, stderr: bytes) -> None:
        self.code = code
        self.stdout = stdout
        self.stderr = stderr


class Instances:
    """The instances of the client's project."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @staticmethod
    def url(name: str, *more: str) -> str:
        """Return the path of instance `name`, or of what is below it."""
        return "/".join(["/1.0/instances", quote(name), *more])

    def get(self, name: str, *, full: bool = False) -> dict[str, Any]:
        """Return one instance, with state and snapshots when `full`.

        Raises:
            NotFound: there is none of that name.
        """
        return dict(self._client.get(self.url(name), recursion=1) if full else self._client.get(self.url(name)))

    def read(self, name: str) -> Reply:
        """Return one instance together with its etag."""
        return self._client.request("GET", self.url(name))

    def state(self, name: str) -> dict[str, Any]:
        """Return status, processes, memory, disk and network of an instance."""
        return dict(self._client.get(self.url(name, "state")))

    def create(self, name: str, source: dict[str, Any], **fields: object) -> Operation:
        """Create an instance.

        Args:
            name: its name; the server picks one when it is empty.
            source: where its root file system comes from: `{"type": "image", "alias": "debian/12"}`,
                `{"type": "none"}`, ...
            **fields: config, devices, profiles, ephemeral, description, type.

        Returns:
            The operation; `first("instances")` of it is the name.
        """
        return self._client.start("POST", "/1.0/instances", {"name": name, "source": source, **fields})

    def update(self, name: str, fields: dict[str, Any], *, if_match: str = "") -> Operation:
        """Replace the configuration by `fields` (as `get` returns them, changed)."""
        return self._client.start("PUT", self.url(name), fields, if_match=if_match)

    def rename(self, name: str, new: str) -> Operation:
        """Rename a stopped instance."""
        return self._client.start("POST", self.url(name), {"name": new})

    def delete(self, name: str) -> Operation:
        """Delete a stopped instance."""
        return self._client.start("DELETE", self.url(name))

    def set_state(
        self, name: str, action: str, *, timeout: int = -1, force: bool = False, stateful: bool = False
    ) -> Operation:
        """Start, stop, restart, freeze or unfreeze an instance.

        Args:
            name: the instance.
            action: "start", "stop", "restart", "freeze", "unfreeze".
            timeout: seconds to wait for a clean stop, -1 for ever.
            force: kill instead of asking.
            stateful: keep or restore the state of the processes.
        """
        body = {"action": action, "timeout": timeout, "force": force, "stateful": stateful}
        return self._client.start("PUT", self.url(name, "state"), body)

    def start(self, name: str) -> Operation:
        """Start an instance."""
        return self.set_state(name, "start")

    def stop(self, name: str, *, timeout: int = -1, force: bool = False) -> Operation:
        """Stop an instance; see `set_state`."""
        return self.set_state(name, "stop", timeout=timeout, force=force)

    def wait(self, name: str, condition: str, *, timeout: int = 60) -> Operation:
        """Wait until an instance is ready (extension pylxc_wait).

        Args:
            name: the instance.
            condition: "running", "stopped", "network", "ip", "ipv4", "ipv6", "port:22", "port:53/udp", "exec", "boot".
            timeout: seconds, -1 for ever.

        Returns:
            The operation; when the time was up, it fails with `timed_out` in its metadata.
        """
        return self._client.start("POST", self.url(name, "wait"), {"condition": condition, "timeout": timeout})

    def exec(
        self,
        name: str,
        command: list[str],
        *,
        stdin: bytes = b"",
        environment: dict[str, str] | None = None,
        user: int = 0,
        group: int = 0,
        cwd: str = "",
    ) -> ExecResult:
        """Run a command in a running instance and return what it wrote.

        Raises:
            CommandFailed: there is no such command.
            BadRequest: the instance does not run.
        """
        from pylxc.client.exec import run

        request = {
            "command": command,
            "interactive": False,
            "environment": environment or {},
            "user": user,
            "group": group,
            "cwd": cwd,
        }
        fds = [os.memfd_create(f"pylxc-{stream}") for stream in ("stdin", "stdout", "stderr")]
        try:
            os.write(fds[0], stdin)
            os.lseek(fds[0], 0, os.SEEK_SET)
            code = run(self._client, name, request, (fds[0], fds[1], fds[2]))
            outputs = []
            for fd in fds[1:]:
                size = os.lseek(fd, 0, os.SEEK_END)
                outputs.append(os.pread(fd, size, 0))
            return ExecResult(code, outputs[0], outputs[1])
        finally:
            for fd in fds:
                os.close(fd)

    def restore(self, name: str, snapshot: str, *, stateful: bool = False) -> Operation:
        """Make an instance what it was when `snapshot` was taken; one that runs is started again."""
        return self._client.start("PUT", self.url(name), {"restore": snapshot, "stateful": stateful})

    @property
    def snapshots(self) -> Snapshots:
        """The snapshots of the instances."""
        from pylxc.client.snapshots import Snapshots

        return Snapshots(self._client)

    def files(self, name: str) -> Files:
        """Return the files of an instance."""
        from pylxc.client.files import Files

        return Files(self._client, name)

    def list(self, *, full: bool = False, all_projects: bool = False) -> list[dict[str, Any]]:
        """Return the instances, with state and snapshots when `full`."""
        query: dict[str, str | int] = {"recursion": 2 if full else 1}
        if all_projects:
            query["all-projects"] = "true"
        return list(self._client.request("GET", "/1.0/instances", query=query).metadata)
