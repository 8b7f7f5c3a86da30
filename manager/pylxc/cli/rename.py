"""`pylxc rename`."""

from __future__ import annotations

from pylxc.cli.grammar import Args, Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.cli.session import Session


def _run(session: Session, args: Args) -> None:
    name, new = session.required(args.words[0]), session.required(args.words[1])
    session.wait(session.client.instances.rename(name, new), f"Renaming {name}")


COMMANDS = (
    Command(
        "rename",
        "Rename instances",
        "[<remote>:]<instance> <new-name>",
        _run,
        words=(2, 2),
        aliases=("mv",),
        complete=("instance", ""),
    ),
)
