"""`pylxc publish`."""

from __future__ import annotations

from pylxc.cli.edit import assignments
from pylxc.cli.grammar import Args, Command, Option
from pylxc.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session


def _publish(session: Session, args: Args) -> None:
    words = list(args.words)
    source = session.required(words.pop(0))
    if words and words[0].endswith(":"):
        session.name(words.pop(0))
    name, _, snapshot = source.partition("/")
    instances = session.client.instances
    found = instances.get(name)
    restarts = not snapshot and found["status"] not in {"Stopped", "Error"}
    if restarts:
        if not args.force:
            raise BadRequest("The instance is currently running. Use --force to have it stopped and restarted")
        if found["ephemeral"]:
            raise BadRequest("The instance is ephemeral: it would be gone once it is stopped")
        session.wait(instances.stop(name, force=True), f"Stopping {name}")
    body: dict[str, Any] = {
        "source": {"type": "snapshot" if snapshot else "instance", "name": source},
        "public": args.public,
        "properties": assignments(words),
        "aliases": [{"name": alias, "description": ""} for alias in args.alias],
    }
    if args.compression:
        body["compression_algorithm"] = args.compression
    if args.expire:
        body["expires_at"] = args.expire
    try:
        operation = session.client.start("POST", "/1.0/images", body)
        session.wait(operation, f"Publishing {source}")
    finally:
        if restarts:
            session.wait(instances.start(name), f"Starting {name}")
    print(f"Instance published with fingerprint: {operation.metadata['fingerprint']}")


COMMANDS = (
    Command(
        "publish",
        "Publish instances as images",
        "[<remote>:]<instance>[/<snapshot>] [<remote>:] [key=value...]",
        _publish,
        words=(1, None),
        options=(
            Option("--alias", help="New alias to define at target", kind="list"),
            Option("--compression", help="Compression algorithm to use (none for uncompressed)", kind="value"),
            Option("--expire", help="Image expiration date (RFC 3339)", kind="value"),
            Option("-f", "--force", help="Stop the instance if it is running, and start it again"),
            Option("--public", help="Make the image public"),
        ),
        examples=(("publish web --alias web/v1 description='The web server'", "Make an image of a stopped instance."),),
        complete=("instance", ""),
    ),
)
