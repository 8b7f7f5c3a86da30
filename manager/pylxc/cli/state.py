"""`pylxc start`, `stop`, `restart`, `pause` and `delete`: one instance after the other, all errors reported."""

from __future__ import annotations

import sys

from pylxc.cli.grammar import Args, Command, Option, UsageError
from pylxc.errors import BadRequest, NotFound, PylxcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pylxc.cli.session import Session

_AT_REST = frozenset({"Stopped", "Error"})


def _each(names: list[str], act: Callable[[str], None]) -> int:
    """Act on every name; with several, one failure does not keep the rest from it."""
    if len(names) == 1:
        act(names[0])
        return 0
    failed = 0
    for name in names:
        try:
            act(name)
        except PylxcError as error:
            from pylxc.cli.output import one_line

            failed = 1
            print(f"Error: {name}: {one_line(error)}", file=sys.stderr)
    return failed


def _names(session: Session, args: Args, command: Command, wanted: frozenset[str]) -> list[str]:
    """Return the instances that are named, or with --all those whose status is in `wanted`."""
    if args.all:
        for word in args.words or [""]:
            if session.name(word):
                raise UsageError("--all does not go with names", command)
        return [entry["name"] for entry in session.client.instances.list() if entry["status"] in wanted]
    if not args.words:
        raise UsageError("Too few arguments", command)
    return [session.required(word) for word in args.words]


def _change(session: Session, args: Args, command: Command, wanted: str, action: str, label: str, **more: Any) -> int:
    instances = session.client.instances
    names = _names(session, args, command, frozenset(wanted.split()))
    console = getattr(args, "console", None)
    if console and len(names) != 1:
        raise UsageError("--console works with one instance", command)

    def act(name: str) -> None:
        verb = action
        if action == "start" and instances.get(name)["status"] == "Frozen":
            verb = "unfreeze"
        operation = instances.set_state(name, verb, **more)
        if console and action == "stop":
            _console(session, name)
        session.wait(operation, f"{label} {name}")
        if console and action != "stop":
            _console(session, name)

    return _each(names, act)


def _console(session: Session, name: str) -> None:
    from pylxc.cli.console import attach

    attach(session, name)


def _start(session: Session, args: Args) -> int:
    return _change(session, args, COMMANDS[0], "Stopped Frozen", "start", "Starting")


def _stop(session: Session, args: Args) -> int:
    if args.force and args.stateful:
        raise UsageError("--force does not go with --stateful", COMMANDS[1])
    more = {"timeout": args.timeout, "force": args.force, "stateful": args.stateful}
    return _change(session, args, COMMANDS[1], "Running Frozen", "stop", "Stopping", **more)


def _restart(session: Session, args: Args) -> int:
    more = {"timeout": args.timeout, "force": args.force}
    return _change(session, args, COMMANDS[2], "Running Frozen", "restart", "Restarting", **more)


def _pause(session: Session, args: Args) -> int:
    return _change(session, args, COMMANDS[3], "Running", "freeze", "Pausing")


def _agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() in {"y", "yes"}
    except EOFError:
        return False


def _delete(session: Session, args: Args) -> int:
    instances = session.client.instances

    def act(name: str) -> None:
        name, _, snapshot = name.partition("/")
        question = f"Remove {name}/{snapshot} (yes/no): " if snapshot else f"Remove {name} (yes/no): "
        if args.interactive and not _agreed(question):
            raise BadRequest("User aborted delete operation")
        if snapshot:
            session.wait(instances.snapshots.delete(name, snapshot), f"Deleting {name}/{snapshot}")
            return
        if args.force:
            found = instances.get(name)
            if found["status"] not in _AT_REST:
                session.wait(instances.stop(name, force=True), f"Stopping {name}")
                if found["ephemeral"]:
                    return  # it went with its stop
        try:
            session.wait(instances.delete(name), f"Deleting {name}")
        except BadRequest:
            if not args.force and instances.get(name)["status"] not in _AT_REST:
                raise BadRequest("The instance is currently running, stop it first or pass --force") from None
            raise

    names = [session.required(word) for word in args.words]
    if len(names) > 1:
        for name in names:
            _require(session, name)
    return _each(names, act)


def _require(session: Session, name: str) -> None:
    """Raise NotFound unless there is the instance, or snapshot, `name`: one slip, and none of several is deleted."""
    instance, _, snapshot = name.partition("/")
    instances = session.client.instances
    try:
        if snapshot:
            instances.snapshots.read(instance, snapshot)
        else:
            instances.read(instance)
    except NotFound as error:
        raise NotFound(f"{name}: {error}") from None


_WORDS = "[<remote>:]<instance> [[<remote>:]<instance>...]"
_ALL = Option("--all", help="Run against all instances")
_CONSOLE = Option(
    "--console", help="Immediately attach to the console", kind="value", implied="console", choices=("console", "vga")
)
_FORCE = Option("-f", "--force", help="Force the instance to shutdown")
_TIMEOUT = Option("--timeout", help="Seconds to wait for a clean stop before giving up", kind="int", default=-1)

COMMANDS = (
    Command(
        "start",
        "Start instances",
        _WORDS,
        _start,
        words=(0, None),
        options=(_ALL, _CONSOLE, Option("--stateless", help="Ignore the instance state")),
        complete=("instance",),
    ),
    Command(
        "stop",
        "Stop instances",
        _WORDS,
        _stop,
        words=(0, None),
        options=(_ALL, _CONSOLE, _FORCE, Option("--stateful", help="Store the instance state"), _TIMEOUT),
        complete=("instance",),
    ),
    Command(
        "restart",
        "Restart instances",
        _WORDS,
        _restart,
        words=(0, None),
        options=(_ALL, _CONSOLE, _FORCE, _TIMEOUT),
        complete=("instance",),
    ),
    Command(
        "pause",
        "Pause instances",
        _WORDS,
        _pause,
        words=(0, None),
        options=(_ALL,),
        details='The opposite of "pylxc pause" is "pylxc start".',
        complete=("instance",),
    ),
    Command(
        "delete",
        "Delete instances and snapshots",
        "[<remote>:]<instance>[/<snapshot>] [[<remote>:]<instance>[/<snapshot>]...]",
        _delete,
        words=(1, None),
        aliases=("rm",),
        options=(
            Option("-f", "--force", help="Force the removal of running instances"),
            Option("-i", "--interactive", help="Require user confirmation"),
        ),
        complete=("instance",),
    ),
)
