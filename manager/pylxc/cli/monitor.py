"""`pylxc monitor`."""

from __future__ import annotations

import sys

from pylxc.cli.grammar import Args, Command, Option
from pylxc.cli.output import plain
from pylxc.client import codec
from pylxc.client.events import Events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session

LEVELS = ("trace", "debug", "info", "warning", "error", "fatal", "panic")


def _pretty(event: dict[str, Any]) -> str:
    metadata = event["metadata"]
    stamp = str(event["timestamp"])[:19]
    if event["type"] == "logging":
        level, text, context = metadata.get("level", ""), metadata.get("message", ""), metadata.get("context") or {}
    elif event["type"] == "lifecycle":
        level, text, context = "info", f"Action: {metadata['action']}, Source: {metadata['source']}", {}
        if requestor := metadata.get("requestor"):
            text += f", Requestor: {requestor.get('protocol', '')}/{requestor.get('username', '')}"
    else:
        level, context = "info", {}
        text = f"ID: {metadata['id']}, Class: {metadata['class']}, Description: {metadata['description']}"
        text += f", Status: {metadata['status']}"
    more = "".join(f" {key}={value}" for key, value in sorted(context.items()))
    return f"{level.upper():<7} [{stamp}] {text}{more}"


def _run(session: Session, args: Args) -> None:
    session.name(args.words[0] if args.words else "")
    form = "pretty" if args.pretty else args.format
    least = LEVELS.index(args.loglevel) if args.loglevel else 0
    session.client.get("/1.0")  # starts the daemon where that is due
    with Events(session.client, tuple(args.type), all_projects=args.all_projects) as events:
        for event in events:
            if event["type"] == "logging":
                level = event["metadata"].get("level", "info")
                if level in LEVELS and LEVELS.index(level) < least:
                    continue
            if form == "json":
                print(codec.dumps(event))
            elif form == "pretty":
                print(plain(_pretty(event)))
            else:
                from pylxc.cli import yamltext

                sys.stdout.write(f"{yamltext.dump(event)}\n\n")
            sys.stdout.flush()


COMMANDS = (
    Command(
        "monitor",
        "Monitor the server's events",
        "[<remote>:]",
        _run,
        words=(0, 1),
        options=(
            Option("--all-projects", help="Show events from all projects"),
            Option(
                "-f",
                "--format",
                help="Format (json|pretty|yaml)",
                kind="value",
                default="yaml",
                choices=("json", "pretty", "yaml"),
            ),
            Option("--loglevel", help="Minimum level for log messages", kind="value", choices=LEVELS),
            Option("--pretty", help="Pretty rendering (short for --format=pretty)"),
            Option(
                "--type", help="Event type to listen for", kind="list", choices=("lifecycle", "logging", "operation")
            ),
        ),
        examples=(
            ("monitor --type=lifecycle", "Show what happens to instances, images, networks, ..."),
            ("monitor --pretty --type=logging --loglevel=info", "Show the daemon's log."),
        ),
    ),
)
