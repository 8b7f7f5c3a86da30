"""`pylxc remote`."""

from __future__ import annotations

from pylxc.cli.grammar import FORMAT, Args, Command
from pylxc.cli.output import show
from pylxc.cli.session import LOCAL, REMOTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.cli.session import Session


def _list(_session: Session, args: Args) -> None:
    rows, data = [], {}
    for name, remote in sorted(REMOTES.items()):
        is_server = remote.protocol == "lxd"
        shown = f"{name} (current)" if name == LOCAL else name
        auth = "file access" if is_server else "none"
        rows.append([shown, remote.url, remote.protocol, auth, "NO" if is_server else "YES", "YES", "NO"])
        data[name] = {"addr": remote.url, "protocol": remote.protocol, "public": not is_server}
    show(args.format, ("NAME", "URL", "PROTOCOL", "AUTH TYPE", "PUBLIC", "STATIC", "GLOBAL"), rows, data)


def _default(_session: Session, _args: Args) -> None:
    print(LOCAL)


COMMANDS = (
    Command(
        "remote",
        "List the remotes",
        sub=(
            Command("get-default", "Show the default remote", "", _default),
            Command("list", "List the available remotes", "", _list, aliases=("ls",), options=(FORMAT,)),
        ),
    ),
)
