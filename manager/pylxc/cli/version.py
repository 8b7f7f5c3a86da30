"""`pylxc version`."""

from __future__ import annotations

from pylxc import __version__
from pylxc.cli.grammar import Args, Command
from pylxc.errors import PylxcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.cli.session import Session


def _run(session: Session, args: Args) -> None:
    session.name(args.words[0] if args.words else "")
    try:
        environment = session.client.server["environment"]
        own = environment.get("pylxc_version")
        server = f"{own} (speaks LXD {environment['server_version']})" if own else environment["server_version"]
    except PylxcError:
        server = "unreachable"
    print(f"Client version: {__version__}\nServer version: {server}")


COMMANDS = (Command("version", "Show the versions of client and server", "[<remote>:]", _run, words=(0, 1)),)
