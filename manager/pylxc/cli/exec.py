"""`pylxc exec` and `pylxc shell`."""

from __future__ import annotations

import os

from pylxc.cli.grammar import Args, Command, Option, UsageError
from pylxc.client.exec import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.cli.session import Session

MODES = ("auto", "interactive", "non-interactive")


def _is_interactive(args: Args, command: Command) -> bool:
    if args.force_interactive and args.force_noninteractive:
        raise UsageError("-t and -T exclude each other", command)
    if (args.force_interactive or args.force_noninteractive) and args.mode != "auto":
        raise UsageError("-t and -T do not go with --mode", command)
    if args.force_interactive or args.mode == "interactive":
        return True
    if args.force_noninteractive or args.mode == "non-interactive" or args.disable_stdin:
        return False
    return os.isatty(0) and os.isatty(1)


def _environment(args: Args, command: Command) -> dict[str, str]:
    environment = {"TERM": os.environ["TERM"]} if os.environ.get("TERM") else {}
    for entry in args.env:
        key, equals, value = entry.partition("=")
        if not equals or not key:
            raise UsageError(f"Bad environment variable {entry!r}, it must be KEY=VALUE", command)
        environment[key] = value
    return environment


def _open_standard_fds() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed, so that no other file gets its number."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # the lowest free number, which is `fd`


def _execute(session: Session, args: Args, command: Command, words: list[str]) -> int:
    _open_standard_fds()
    if args.disable_stdin:
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
    request = {
        "command": words,
        "interactive": _is_interactive(args, command),
        "environment": _environment(args, command),
        "user": args.user,
        "group": args.group,
        "cwd": args.cwd,
    }
    return run(session.client, session.required(args.words[0]), request)


def _exec(session: Session, args: Args) -> int:
    return _execute(session, args, COMMANDS[0], args.words[1:])


def _shell(session: Session, args: Args) -> int:
    return _execute(session, args, COMMANDS[1], ["su", "-l", *args.words[1:]])


_OPTIONS = (
    Option("--cwd", help="Directory to run the command in (default /root)", kind="value", default=""),
    Option("-n", "--disable-stdin", help="Disable stdin (reads from /dev/null)"),
    Option("--env", help="Environment variable to set (e.g. HOME=/home/foo)", kind="list"),
    Option("-t", "--force-interactive", help="Force pseudo-terminal allocation"),
    Option("-T", "--force-noninteractive", help="Disable pseudo-terminal allocation"),
    Option("--group", help="Group ID to run the command as", kind="int", default=0),
    Option(
        "--mode", help=f"Override the terminal mode ({', '.join(MODES)})", kind="value", default="auto", choices=MODES
    ),
    Option("--user", help="User ID to run the command as", kind="int", default=0),
)

COMMANDS = (
    Command(
        "exec",
        "Execute commands in instances",
        "[<remote>:]<instance> [flags] [--] <command line>",
        _exec,
        words=(2, None),
        options=_OPTIONS,
        details="""
The command is executed directly, without a shell: patterns, variables and redirections are not understood.
For those, run a shell: pylxc exec <instance> -- sh -c "cd /tmp && pwd"

It gets a terminal when stdin and stdout are terminals. The exit status is the command's own; 126 when it cannot be
executed, 127 when it is not there, 128 + N when signal N killed it.
""",
        examples=(
            ("exec c01 bash", "Open a shell."),
            ("exec c01 -- tar -C /srv -cz . > srv.tar.gz", "Pipe a command's output into a file of the host."),
        ),
        complete=("instance", ""),
    ),
    Command(
        "shell",
        "Open a login shell in an instance",
        "[<remote>:]<instance> [flags]",
        _shell,
        words=(1, None),
        options=_OPTIONS,
        complete=("instance", ""),
    ),
)
