"""The `pylxc` command: finds the module of the command that is named, runs it, turns errors into one line.

Only that module is imported: what a command does not need costs it nothing.
"""

from __future__ import annotations

import os
import sys

from pylxc.cli.grammar import Command, Parser, UsageError
from pylxc.cli.session import Session
from pylxc.errors import NotFound, PylxcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Command: module, summary, further names. Every module's COMMANDS holds the rest.
TABLE: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "admin": ("admin", "Set up and manage the daemon", ()),
    "completion": ("completion", "Print a completion script for a shell", ()),
    "config": ("config", "Manage instance and server configuration options", ()),
    "console": ("console", "Attach to instance consoles", ()),
    "copy": ("copy", "Copy instances", ("cp",)),
    "delete": ("state", "Delete instances and snapshots", ("rm",)),
    "doctor": ("doctor", "Check what pylxc needs of this host", ()),
    "exec": ("exec", "Execute commands in instances", ()),
    "export": ("backup", "Export instance backups", ()),
    "file": ("file", "Manage files in instances", ()),
    "help": ("help", "Show help on a command", ()),
    "image": ("image", "Manage images", ()),
    "import": ("backup", "Import instance backups", ()),
    "info": ("info", "Show instance or server information", ()),
    "init": ("launch", "Create instances from images", ("create",)),
    "launch": ("launch", "Create and start instances from images", ()),
    "list": ("list", "List instances", ("ls",)),
    "monitor": ("monitor", "Monitor the server's events", ()),
    "move": ("copy", "Move and rename instances", ("mv",)),
    "network": ("network", "Manage networks", ()),
    "operation": ("operation", "List, show and delete background operations", ()),
    "pause": ("state", "Pause instances", ()),
    "port": ("port", "Lead ports of the host into instances", ()),
    "profile": ("profile", "Manage profiles", ()),
    "project": ("project", "Manage projects", ()),
    "publish": ("publish", "Publish instances as images", ()),
    "query": ("query", "Send a raw query to the server", ()),
    "remote": ("remote", "Manage the list of remote servers", ()),
    "rename": ("rename", "Rename instances and snapshots", ()),
    "restart": ("state", "Restart instances", ()),
    "restore": ("snapshot", "Restore instances from snapshots", ()),
    "shell": ("exec", "Open a login shell in an instance", ()),
    "snapshot": ("snapshot", "Create instance snapshots", ()),
    "start": ("state", "Start instances", ()),
    "stop": ("state", "Stop instances", ()),
    "storage": ("storage", "Manage storage pools and volumes", ()),
    "version": ("version", "Show the versions of client and server", ()),
    "wait": ("wait", "Wait until an instance is ready", ()),
    "warning": ("warning", "Show and acknowledge the server's warnings", ()),
}
HIDDEN = Command("_complete", "", module="completion")

ROOT = Command(
    "pylxc",
    "System containers: machines that share the host's kernel",
    sub=tuple(Command(name, text, aliases=aliases, module=module) for name, (module, text, aliases) in TABLE.items()),
)


def find(name: str) -> Command | None:
    """Import the module of the top-level command `name` and return the command, None when there is none."""
    return HIDDEN.loaded() if name == HIDDEN.name else ROOT.child(name)


def run(argv: Sequence[str]) -> int:
    """Run a command line and return its exit status; errors are raised."""
    parser = Parser(find, ROOT)
    args = parser.parse(argv)
    if args.version:
        from pylxc import __version__

        print(__version__)
        return 0
    if args.help or parser.command.run is None:
        from pylxc.cli.help import show

        show(parser.command)
        return 0
    parser.check_words()
    assert parser.command.run is not None
    session = Session(args)
    try:
        return parser.command.run(session, args) or 0
    except UsageError as error:
        error.command = error.command or parser.command
        raise
    except NotFound:
        session.check_project()
        raise
    finally:
        session.close()


def _report(error: BaseException) -> int:
    """Print one line (two for a wrong usage) and return the exit status."""
    if isinstance(error, UsageError):
        assert error.command is not None
        print(f"Error: {error}\nUsage: {error.command.usage_line()}", file=sys.stderr)
        return 1  # as lxc
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, BrokenPipeError):
        return 141
    from pylxc.cli.output import one_line, plain

    text = one_line(error) if isinstance(error, PylxcError) else plain(_os_error(error))
    if text:
        print(f"Error: {text}", file=sys.stderr)
    return int(getattr(error, "exit_code", 1))


def _os_error(error: BaseException) -> str:
    if not isinstance(error, OSError):
        raise error
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def _flush_quietly() -> None:
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        return  # a reader that went away has been reported already


def _prepare_streams() -> None:
    """Have a stdout, and one that prints every text: a name may hold what the user's locale cannot show."""
    if sys.stdout is None:  # closed from the start
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if stream:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (the process's own when None), report errors, return the exit status."""
    own = argv is None
    words = sys.argv[1:] if argv is None else argv
    if own:
        _prepare_streams()
    try:
        code = run(words)
        if sys.stdout:
            sys.stdout.flush()
    except (PylxcError, UsageError, OSError, KeyboardInterrupt) as error:
        if "--debug" in words[: words.index("--") if "--" in words else None]:
            import traceback

            traceback.print_exc()
        code = _report(error)
    if own:
        # The interpreter's tidying up takes 2 ms that nobody needs; everything is written.
        _flush_quietly()
        os._exit(code)
    return code


if __name__ == "__main__":
    main()
