"""What one call of the command works with: the remotes, the connection, the global options."""

from __future__ import annotations

import os
import sys

from pylxc.client.client import Client, default_socket
from pylxc.client.http import Unreachable, connect_unix
from pylxc.errors import BadRequest, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.grammar import Args
    from pylxc.client.operations import Operation

LOCAL = "local"
RECIPE = "recipe"


class Remote:
    """Where instances or images are: `protocol` is "lxd" for a server, "recipe" for the built-in recipes."""

    __slots__ = ("name", "protocol", "url")

    def __init__(self, name: str, url: str, protocol: str) -> None:
        self.name = name
        self.url = url
        self.protocol = protocol


REMOTES = {LOCAL: Remote(LOCAL, "unix://", "lxd"), RECIPE: Remote(RECIPE, "", "recipe")}


class Session:
    """One call of the command.

    Attributes:
        quiet: no progress is wanted.
        project: the project that is worked in.
    """

    def __init__(self, args: Args) -> None:
        self.quiet = bool(args.quiet)
        self.debug = bool(args.debug)
        self.project = str(args.project or os.environ.get("PYLXC_PROJECT") or "default")
        self._client: Client | None = None

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

    @staticmethod
    def split(text: str) -> tuple[Remote, str]:
        """Split `[remote:]name`.

        Raises:
            NotFound: there is no such remote.
        """
        before, colon, after = text.partition(":")
        if not colon or "/" in before:
            return REMOTES[LOCAL], text
        if before not in REMOTES:
            raise NotFound(f'The remote "{before}" doesn\'t exist', hint="pylxc remote list shows those that do")
        return REMOTES[before], after

    def name(self, text: str) -> str:
        """Return the name in `[remote:]name`, which must be on a server.

        Raises:
            BadRequest: the remote holds images only.
        """
        remote, name = self.split(text)
        if remote.protocol != "lxd":
            raise BadRequest(f'The remote "{remote.name}" holds images only')
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
