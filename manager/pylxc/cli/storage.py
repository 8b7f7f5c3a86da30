"""`pylxc storage`."""

from __future__ import annotations

import sys

from pylxc.cli.edit import assignments
from pylxc.cli.entity import Entity, group
from pylxc.cli.grammar import Args, Command, Option
from pylxc.cli.storage_volume import VOLUME
from pylxc.units import binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session

POOL = Entity("storage pool", "/1.0/storage-pools", ("config", "description"), "pool", keys="storage-btrfs")


def _row(one: dict[str, Any]) -> list[str]:
    return [
        one["name"],
        one["driver"],
        (one.get("config") or {}).get("source", ""),
        one.get("description", ""),
        str(len(one.get("used_by") or [])),
        str(one.get("status", "")).upper(),
    ]


def _create(session: Session, args: Args) -> None:
    name, driver = session.required(args.words[0], "storage pool"), args.words[1]
    session.client.storage_pools.create(name, driver=driver, config=assignments(args.words[2:]))
    if not session.quiet:
        print(f"Storage pool {name} created")


def _info(session: Session, args: Args) -> None:
    from urllib.parse import unquote

    from pylxc.cli import yamltext

    name = session.required(args.words[0], "storage pool")
    pool = session.client.storage_pools.get(name)
    resources = session.client.storage_pools.resources(name)

    def size(count: int) -> str:
        return str(count) if args.bytes else binary_size(count)

    info: dict[str, Any] = {"description": pool["description"], "driver": pool["driver"], "name": pool["name"]}
    if space := resources.get("space"):
        info |= {"space used": size(space["used"]), "total space": size(space["total"])}
    used_by: dict[str, list[str]] = {}
    for url in sorted(pool.get("used_by") or []):
        parts = url.split("?")[0].split("/")
        kind = "volumes" if "volumes" in parts else parts[2] if len(parts) > 3 else "other"
        used_by.setdefault(kind, []).append(unquote(parts[-1]))
    sys.stdout.write(yamltext.dump({"info": info, "used by": used_by}))


def _show(session: Session, args: Args) -> None:
    if not args.resources:
        POOL.show(session, args)
        return
    from pylxc.cli import yamltext

    name = session.required(args.words[0], "storage pool")
    sys.stdout.write(yamltext.dump(session.client.storage_pools.resources(name)))


COMMANDS = (
    group(
        "storage",
        "Manage storage pools and volumes",
        (
            VOLUME,
            *POOL.commands(but=("rename", "show")),
            POOL.list_command(
                "List available storage pools", ("NAME", "DRIVER", "SOURCE", "DESCRIPTION", "USED BY", "STATE"), _row
            ),
            Command(
                "create",
                "Create storage pools",
                "[<remote>:]<pool> <driver> [key=value...]",
                _create,
                words=(2, None),
                examples=(("storage create fast dir source=/srv/fast", "Create a pool in an empty directory."),),
            ),
            Command(
                "info",
                "Show useful information about storage pools",
                "[<remote>:]<pool>",
                _info,
                words=(1, 1),
                options=(Option("--bytes", help="Show the used and free space in bytes"),),
                complete=("pool",),
            ),
            Command(
                "show",
                "Show storage pool configurations and resources",
                "[<remote>:]<pool>",
                _show,
                words=(1, 1),
                options=(Option("--resources", help="Show the space and the inodes, used and in all"),),
                complete=("pool",),
            ),
        ),
    ),
)
