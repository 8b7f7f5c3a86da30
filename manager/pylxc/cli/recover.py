"""`pylxc admin recover`: find instances and volumes again whose rows are lost."""

from __future__ import annotations

import sys

from pylxc.cli.grammar import Args
from pylxc.errors import BadRequest, Conflict, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session

_DRIVERS = ("btrfs", "dir")


def recover(session: Session, args: Args) -> int:
    """Look through storage pools and take what they hold; return 1 when something could not be taken."""
    client = session.client
    known: list[dict[str, Any]] = client.get("/internal/recover/pools")
    pools = [_definition(word, known) for word in args.words] or known
    if not args.yes and not args.words:
        pools = _choose(known)
    if not pools:
        raise BadRequest("There is no storage pool to look through", hint="name it: NAME=DRIVER[,SOURCE]")
    body = {"pools": pools, "profiles": args.profiles}
    found = client.request("POST", "/internal/recover/validate", body).metadata
    _show(found)
    if found["DependencyErrors"]:
        raise Conflict("Something that is needed is gone: make it, then recover again", hint=_way_out(found))
    # A pool that holds nothing unknown may be unknown itself.
    if not found["UnknownVolumes"] and {p["name"] for p in pools} <= set(_names(client)):
        print("Nothing unknown was found")
        return 1 if found["Problems"] else 0
    if not args.yes and not _agree("Would you like to recover these?"):
        return 0
    done = client.request("POST", "/internal/recover/import", body).metadata
    for problem in done["Problems"]:
        if problem not in found["Problems"]:
            print(f" - {problem}", file=sys.stderr)
    if not session.quiet:
        print(f"Recovered {len(done['UnknownVolumes'])} of {len(found['UnknownVolumes'])}")
    return 1 if done["Problems"] else 0


def _names(client: Any) -> list[str]:
    return [pool["name"] for pool in client.storage_pools.list()]


def _definition(word: str, known: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the pool that `NAME=DRIVER[,SOURCE][,KEY=VALUE...]` or the name of a known one says."""
    name, has_driver, rest = word.partition("=")
    if not has_driver and name not in [pool["name"] for pool in known]:
        hint = f"say what it is: {name}={'|'.join(_DRIVERS)}[,SOURCE]"
        raise NotFound(f"No storage pool {name!r} is known or found", hint=hint)
    if not has_driver:
        return {"name": name}
    driver, *options = rest.split(",")
    config = {}
    for option in options:
        key, has_value, value = option.partition("=")
        config[key if has_value else "source"] = value if has_value else key
    return {"name": name, "driver": driver, "config": config}


def _choose(known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ask which pools to look through."""
    print("These storage pools were found:")
    for pool in known:
        source = pool["config"].get("source", "")
        print(f' - {pool["name"]} (backend "{pool["driver"]}"{f", source {source!r}" if source else ""})')
    pools = list(known)
    while _agree("Would you like to recover another storage pool?"):
        name = _ask("Name of the storage pool")
        driver = _ask(f"Name of the storage backend ({', '.join(_DRIVERS)})")
        source = _ask("Source of the storage pool (directory, block device; empty for its own place)")
        pools.append({"name": name, "driver": driver, "config": {"source": source} if source else {}})
    return pools


def _show(found: dict[str, Any]) -> None:
    if found["UnknownVolumes"]:
        print("The following unknown storage volumes have been found:")
    for volume in found["UnknownVolumes"]:
        kind = "Container" if volume["type"] == "container" else "Volume"
        print(
            f' - {kind} "{volume["name"]}" on pool "{volume["pool"]}" in project "{volume["project"]}" '
            f"(includes {volume['snapshotCount']} snapshots)"
        )
    for title, key in (
        ("You are currently missing the following:", "DependencyErrors"),
        ("The following cannot be recovered:", "Problems"),
        ("The following will be different:", "Warnings"),
    ):
        if found[key]:
            print(title)
        for line in found[key]:
            print(f" - {line}")


def _way_out(found: dict[str, Any]) -> str:
    if any(line.startswith("Profile ") for line in found["DependencyErrors"]):
        return "--profiles makes profiles again as the instances have them written down"
    return "pylxc project create, pylxc network create"


def _agree(question: str) -> bool:
    return _ask(f"{question} (yes/no) [default=no]").lower() in ("y", "yes")


def _ask(question: str) -> str:
    try:
        return input(f"{question}: ").strip()
    except EOFError:
        raise BadRequest("Nobody answers", hint="--yes answers for you") from None
