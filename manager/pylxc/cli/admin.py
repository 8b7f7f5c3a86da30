"""`pylxc admin`: the daemon itself."""

from __future__ import annotations

import os
import signal
import sys
import time

from pylxc.cli.edit import stdin_text
from pylxc.cli.grammar import Args, Command, Option, UsageError
from pylxc.client.client import Client
from pylxc.client.http import Unreachable, with_query
from pylxc.errors import BadRequest, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session

_RETRY_SECONDS = 0.1


def _init(session: Session, args: Args) -> None:
    ways = [way for way in ("auto", "minimal", "preseed", "dump") if getattr(args, way)]
    if len(ways) != 1:
        raise UsageError("One of --auto, --minimal, --preseed and --dump is needed", _command("init"))
    if args.dump:
        _dump(session)
        return
    body: dict[str, Any] = {ways[0]: True}
    if args.preseed:
        from pylxc.cli import yamltext

        given = stdin_text()
        if not given:
            raise BadRequest("The preseed is read from stdin", hint="pylxc admin init --preseed < preseed.yaml")
        body = {"preseed": yamltext.load(given, "preseed")}
    told = session.client.request("POST", "/1.0/pylxc/init", body).metadata["storage"]
    if told and not session.quiet:
        print(told)


def _dump(session: Session) -> None:
    """Print the present configuration as a preseed."""
    from pylxc.cli import yamltext

    client = session.client

    def some(entity: dict[str, Any], *keys: str) -> dict[str, Any]:
        return {key: entity[key] for key in keys if key in entity}

    networks = [one for one in client.networks.list() if one["managed"]]
    preseed = {
        "config": client.server["config"],
        "networks": [some(one, "config", "description", "name", "type") for one in networks],
        "storage_pools": [some(one, "config", "description", "name", "driver") for one in client.storage_pools.list()],
        "profiles": [some(one, "config", "description", "devices", "name") for one in client.profiles.list()],
        "projects": [some(one, "config", "description", "name") for one in client.projects.list()],
    }
    sys.stdout.write(yamltext.dump(preseed))


def _waitready(_session: Session, args: Args) -> None:
    _wait_ready(args.timeout)


def _wait_ready(timeout: int) -> None:
    end = time.monotonic() + timeout if timeout else None
    while True:
        try:
            # A client of its own: this command never starts a daemon.
            Client().get("/internal/ready")
            return
        except Unavailable as error:
            if end is not None and time.monotonic() >= end:
                raise Unavailable(f"The daemon is not ready after {timeout} seconds") from error
        time.sleep(_RETRY_SECONDS)


def _reload(_session: Session, args: Args) -> None:
    client = Client()
    daemon = int(client.server["environment"]["server_pid"])
    try:
        os.kill(daemon, signal.SIGHUP)
    except PermissionError:
        raise BadRequest("Only root can have the daemon begin anew", hint="sudo pylxc admin reload") from None
    # It closes its connections when it ends; who connects then is served by the next one.
    if not client.connection.wait_readable(args.timeout):
        raise Unavailable(f"The daemon has not stopped after {args.timeout} seconds")
    _wait_ready(args.timeout)


def _shutdown(_session: Session, args: Args) -> None:
    client = Client()
    target = with_query("/internal/shutdown", {"force": "true"} if args.force else {})
    client.connection.send_only("PUT", target)
    if args.timeout and not client.connection.wait_readable(args.timeout):
        raise Unavailable(f"The daemon has not stopped after {args.timeout} seconds")
    try:
        response = client.connection.receive()
        if response.status >= 400:
            raise BadRequest(f"The daemon refuses to stop: {response.read().decode(errors='replace')}")
        response.drain()
        # It closes its connections when it has ended.
        client.connection.wait_readable(args.timeout or 60)
    except Unreachable:
        pass  # it went before it could answer, which is what was wanted


def _backup(session: Session, args: Args) -> None:
    from pylxc.cli.database import backup

    backup(session, args, _command("backup"))


def _restore(session: Session, args: Args) -> int:
    from pylxc.cli.database import restore

    return restore(session, args)


def _recover(session: Session, args: Args) -> int:
    from pylxc.cli.recover import recover

    return recover(session, args)


def _units(session: Session, args: Args) -> None:
    from pylxc.cli.units_systemd import install, text

    if args.install:
        install(args.group, quiet=session.quiet)
    else:
        sys.stdout.write(text(args.group))


def _command(name: str) -> Command:
    command = COMMANDS[0].child(name)
    assert command is not None
    command.path = f"admin {name}"
    return command


COMMANDS = (
    Command(
        "admin",
        "Set up and manage the daemon",
        sub=(
            Command(
                "backup",
                "Write the daemon's database to a file",
                "<file>|-",
                _backup,
                words=(1, 1),
                details="What instances, networks, profiles and the rest are is in it; files of instances are not.\n"
                "The daemon keeps copies of its own as well, one a day: database/backups in its directory.",
                examples=(("pylxc admin backup /backup/pylxc.db", "Replace that file when the new one is whole"),),
                complete=("file",),
            ),
            Command(
                "init",
                "Set up storage, network and the default profile",
                "",
                _init,
                options=(
                    Option(
                        "--auto",
                        help="The best storage pool that the host can have, a bridge with NAT, a profile for both",
                    ),
                    Option("--dump", help="Print the present configuration as a preseed"),
                    Option("--minimal", help="The same without a network"),
                    Option("--preseed", help="What the YAML on stdin says"),
                ),
                details="The first launch does what --auto does, so this is needed only for something else.\n"
                "For instances on the host's own network: pylxc network create br0 --lan eth0",
            ),
            Command(
                "recover",
                "Find instances and volumes in storage pools again when the database is lost",
                "[<pool>|<pool>=<driver>[,<source>][,<key>=<value>...]...]",
                _recover,
                words=(0, None),
                options=(
                    Option("--profiles", help="Make profiles that are gone again, as the instances have them"),
                    Option("-y", "--yes", help="Ask nothing"),
                ),
                details="Without a pool it looks through those that the server knows or finds in its directory.\n"
                "Networks and projects that are needed have to be made first; what is missing is named.",
                examples=(
                    ("pylxc admin recover", "Look, ask, and take what was found"),
                    ("pylxc admin recover --yes default=dir fast=btrfs,/dev/sdb", "Name the pools, ask nothing"),
                ),
            ),
            Command(
                "reload",
                "Have the daemon begin anew with the program on disk, as after an upgrade",
                "",
                _reload,
                options=(Option("-t", "--timeout", help="Seconds to wait before giving up", kind="int", default=60),),
                details="Instances run on. What is being done is brought to its end; who connects meanwhile waits.\n"
                "systemctl reload pylxc does the same.",
            ),
            Command(
                "restore",
                "Replace the daemon's database by a backup of it",
                "<file>",
                _restore,
                words=(1, 1),
                options=(Option("--restart", help="Stop the daemon for it, if it runs; instances run on"),),
                details="The backup is checked before anything is replaced; the former database is kept beside it.\n"
                "What instances hold that the backup does not know: pylxc admin recover",
                complete=("file",),
            ),
            Command(
                "shutdown",
                "Stop all instances, then the daemon",
                "",
                _shutdown,
                options=(
                    Option("-f", "--force", help="Do not wait for operations to finish"),
                    Option("-t", "--timeout", help="Seconds to wait before giving up", kind="int", default=0),
                ),
            ),
            Command(
                "units",
                "Print or install the systemd units",
                "",
                _units,
                options=(
                    Option("--group", help="Group that may use the socket", kind="value", default="root"),
                    Option("--install", help="Write them to /etc/systemd/system and enable the socket"),
                ),
            ),
            Command(
                "waitready",
                "Wait until the daemon is ready",
                "",
                _waitready,
                options=(Option("-t", "--timeout", help="Seconds to wait before giving up", kind="int", default=0),),
            ),
        ),
    ),
)
