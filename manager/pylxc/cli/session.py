"""What one call of the command works with: the remotes, the connection, the global options."""

from __future__ import annotations

import os
import sys

from pylxc.cli import settings
from pylxc.client.client import Client, default_socket
from pylxc.client.http import Unreachable, connect_unix
from pylxc.errors import BadRequest, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.grammar import Args
    from pylxc.cli.remotes import Remote, Remotes
    from pylxc.client.operations import Operation


class Session:
    """One call of the command.

    Attributes:
        quiet: no progress is wanted.
        project: the project that is worked in.
    """

    def __init__(self, args: Args) -> None:
        self.quiet = bool(args.quiet)
        self.debug = bool(args.debug)
        self._force_local = bool(args.force_local)
        chosen = "" if self._force_local else settings.local_project()
        self.project = str(args.project or os.environ.get("PYLXC_PROJECT") or chosen or "default")
        self._client: Client | None = None
        self._remotes: Remotes | None = None

    @property
    def client(self) -> Client:
        """The client of the local server; a daemon is started when none answers and the caller may."""
        if self._client is None:
            self._client = Client(project=self.project, dial=self._dial)
            if self.debug:
                self._client.on_answer = _print_answer
        return self._client

    def _dial(self) -> Any:
        path = default_socket()
        try:
            return connect_unix(path)
        except Unreachable as error:
            from pylxc.cli.autostart import start_daemon

            return start_daemon(path, error)

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()

    @property
    def remotes(self) -> Remotes:
        """All remotes of the user."""
        if self._remotes is None:
            from pylxc.cli.remotes import Remotes

            self._remotes = Remotes.load(only_shipped=self._force_local)
        return self._remotes

    def split(self, text: str) -> tuple[Remote, str]:
        """Split `[remote:]name`; the remote is the local server or holds images only.

        Raises:
            NotFound: there is no such remote.
            NotSupported: it is another server than the local one.
        """
        remote, name = self._parts(text)
        if remote == settings.LOCAL:
            from pylxc.cli.remotes import LOCAL

            return LOCAL, name
        found = self.remotes.get(remote)
        if found.is_server:
            self.remotes.need_local(remote)
        return found, name

    def place(self, remote: Remote) -> dict[str, str]:
        """Return where the images of `remote` are, as sources in the API have it: protocol, server, certificate."""
        found = {
            "protocol": remote.protocol,
            "server": remote.addr,
            "certificate": self.remotes.certificate(remote),
        }
        return {key: value for key, value in found.items() if value}

    def _parts(self, text: str) -> tuple[str, str]:
        before, colon, after = text.partition(":")
        if colon and "/" not in before:
            return before, after
        return settings.LOCAL if self._force_local else settings.default_remote(), text

    def name(self, text: str) -> str:
        """Return the name in `[remote:]name`, which must be on a server; "" is the default remote itself.

        Raises:
            NotFound: there is no such remote.
            BadRequest: the remote holds images only.
            NotSupported: it is another server than the local one.
        """
        remote, name = self._parts(text)
        if remote != settings.LOCAL:
            self.remotes.need_local(remote)
        return name

    def required(self, text: str, what: str = "instance") -> str:
        """Return the name in `[remote:]name`.

        Raises:
            BadRequest: there is no name in it.
        """
        name = self.name(text)
        if not name:
            raise BadRequest(f"The name of the {what} is missing in {text!r}")
        return name

    def check_project(self) -> None:
        """Make sure that the project is there: for what was not found in it, and for lists with nothing in them.

        LXD's dialect lists no instances in a project that does not exist, and finds none there.

        Raises:
            NotFound: there is no such project.
        """
        if self.project != "default":
            try:
                self.client.projects.get(self.project)
            except NotFound:
                raise NotFound(f"Project {self.project!r} not found", hint="pylxc project list") from None

    def wait(self, operation: Operation, label: str = "") -> Operation:
        """Wait for an operation, with progress when it takes its time; Ctrl-C cancels it.

        Args:
            operation: what to wait for.
            label: what is being done, for the progress line: "Creating c01".

        Raises:
            PylxcError: the operation failed.
        """
        if operation.done:
            return operation.check()
        from pylxc.cli.progress import wait

        return wait(self, operation, label)


def _print_answer(method: str, target: str, status: int) -> None:
    print(f"{method} {target}: {status}", file=sys.stderr)
