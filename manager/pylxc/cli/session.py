"""What one call of the command works with: the remotes, the connection, the global options."""

from __future__ import annotations

import os
import sys

from pylxc.cli import settings
from pylxc.client.client import Client, default_socket
from pylxc.client.http import Unreachable, connect_unix
from pylxc.errors import BadRequest, NotFound, NotSupported

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
        self._given_project = str(args.project or os.environ.get("PYLXC_PROJECT") or "")
        chosen = "" if self._force_local else settings.local_project()
        self.project = self._given_project or chosen or "default"
        self._server = ""
        self._client: Client | None = None
        self._remotes: Remotes | None = None

    @property
    def client(self) -> Client:
        """The client of the server that the words of the command name, before or after this, else of the default one.

        A local daemon is started when none answers and the caller may.
        """
        if self._client is None:
            self._client = Client(project=self.project, dial=self._dial, is_local=self._server in ("", settings.LOCAL))
            if self.debug:
                self._client.on_answer = _print_answer
        return self._client

    def connect(self, remote: Remote, certificate: str) -> Client:
        """Return a client of a server on the network.

        Args:
            remote: the server.
            certificate: PEM of the one that it must have, "" for one that the host trusts.
        """
        return Client(project=self.project, dial=lambda: _dial(remote, certificate), is_local=False)

    def beside(self, remote: Remote) -> Client:
        """Return a client of a server that is worked with beside the one of `client`."""
        if remote.name == settings.LOCAL:
            return Client(project=self.project, dial=_dial_local)
        project = self._given_project or remote.project or "default"
        certificate = self.remotes.certificate(remote)
        return Client(project=project, dial=lambda: _dial(remote, certificate), is_local=False)

    def _dial(self) -> Any:
        if not self._server:
            # The local server fetches what is in remotes that hold images only.
            default = self._parts("")[0]
            is_server = default != settings.LOCAL and self.remotes.get(default).is_server
            self._use(default if is_server else settings.LOCAL)
        if self._server != settings.LOCAL:
            remote = self.remotes.get(self._server)
            return _dial(remote, self.remotes.certificate(remote))
        return _dial_local()

    def _use(self, server: str) -> None:
        """Work with a server: "local", or a remote's name.

        Raises:
            NotSupported: the command works with another one already.
        """
        if self._server not in ("", server):
            raise NotSupported(
                f"{self._server} and {server} are different servers, which this command cannot use together",
                hint="copy what is needed first: pylxc image copy, or pylxc export and import",
            )
        if not self._server and server != settings.LOCAL:
            self.project = self._given_project or self.remotes.get(server).project or "default"
            if self._client is not None:
                self._client.project, self._client.is_local = self.project, False
        self._server = server

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
        """Split `[remote:]name`; the remote is the server that is worked with, or holds images only.

        Raises:
            NotFound: there is no such remote.
            NotSupported: it is another server than the one that is worked with.
        """
        remote, name = self._parts(text)
        if remote == settings.LOCAL:
            from pylxc.cli.remotes import LOCAL

            self._use(remote)
            return LOCAL, name
        found = self.remotes.get(remote)
        if found.is_server:
            self._use(remote)
        return found, name

    def peek(self, text: str) -> tuple[Remote, str]:
        """Split `[remote:]name` like `split`, of any server: that it is worked with is not said."""
        remote, name = self._parts(text)
        if remote == settings.LOCAL:
            from pylxc.cli.remotes import LOCAL

            return LOCAL, name
        return self.remotes.get(remote), name

    def place(self, remote: Remote) -> dict[str, str]:
        """Return where the images of `remote` are, as sources in the API have it: protocol, server, certificate."""
        found = {
            "protocol": remote.protocol,
            "server": remote.addr,
            "certificate": self.remotes.certificate(remote),
        }
        return {key: value for key, value in found.items() if value}

    def _parts(self, text: str, absent: str = "") -> tuple[str, str]:
        before, colon, after = text.partition(":")
        if colon and "/" not in before:
            return before, after
        return absent or (settings.LOCAL if self._force_local else settings.default_remote()), text

    def name(self, text: str) -> str:
        """Return the name in `[remote:]name`, which must be on a server; "" is the default remote itself.

        Raises:
            NotFound: there is no such remote.
            BadRequest: the remote holds images only.
            NotSupported: it is another server than the one that is worked with.
        """
        remote, name = self._parts(text)
        if remote != settings.LOCAL:
            self.remotes.need_server(remote)
        self._use(remote)
        return name

    def new_name(self, text: str, what: str = "instance") -> str:
        """Return a further name, which is on the server of the names before; raises like `required`."""
        remote, name = self._parts(text, self._server)
        return self.required(f"{remote}:{name}", what)

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


def _dial_local() -> Any:
    path = default_socket()
    try:
        return connect_unix(path)
    except Unreachable as error:
        from pylxc.cli.autostart import start_daemon

        return start_daemon(path, error)


def _dial(remote: Remote, certificate: str) -> Any:
    from pylxc.cli.keys import key_pair
    from pylxc.client.tls import ChangedCertificate, dial

    try:
        return dial(remote.addr, certificate, key_pair())
    except ChangedCertificate as error:
        hint = f"if it was changed on purpose: pylxc remote remove {remote.name}, and add it again"
        raise Unreachable(str(error), hint=hint) from error


def _print_answer(method: str, target: str, status: int) -> None:
    print(f"{method} {target}: {status}", file=sys.stderr)
