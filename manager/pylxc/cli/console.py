"""`pylxc console`."""

from __future__ import annotations

import os
import sys

from pylxc.cli.grammar import Args, Command, Option
from pylxc.errors import NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.cli.session import Session

_DETACH = "To detach from the console, press: <ctrl>+a q"


def attach(session: Session, name: str) -> None:
    """Connect the caller's terminal with the console of instance `name` until ctrl-a q, or its end."""
    from pylxc.client.console import attach as attach_console

    attach_console(session.client, name, on_attached=lambda: print(_DETACH, end="\r\n", flush=True))
    print("\r", flush=True)


def _run(session: Session, args: Args) -> None:
    name = session.required(args.words[0])
    if args.type != "console":
        raise NotSupported("Containers have no VGA console")
    if args.show_log:
        response = session.client.stream("GET", session.client.instances.url(name, "console"))
        sys.stdout.write("\nConsole log:\n\n")
        sys.stdout.flush()
        response.into(1)
        os.write(1, b"\n")
        return
    attach(session, name)


COMMANDS = (
    Command(
        "console",
        "Attach to instance consoles",
        "[<remote>:]<instance>",
        _run,
        words=(1, 1),
        options=(
            Option("--show-log", help="Retrieve the instance's console log"),
            Option(
                "-t",
                "--type",
                help="Type of connection to establish",
                kind="value",
                default="console",
                choices=("console", "vga"),
            ),
        ),
        details="Detach with ctrl-a q; ctrl-a a sends ctrl-a.",
        complete=("instance",),
    ),
)
