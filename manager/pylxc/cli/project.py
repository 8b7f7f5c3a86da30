"""`pylxc project`."""

from __future__ import annotations

from pylxc.cli.edit import assignments
from pylxc.cli.entity import Entity, group
from pylxc.cli.grammar import FORMAT, Args, Command, Option
from pylxc.cli.output import show, sort_rows, yes
from pylxc.units import binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session

PROJECT = Entity("project", "/1.0/projects", ("config", "description"), keys="project")
_FEATURES = ("features.images", "features.profiles", "features.storage.volumes", "features.networks")


def _list(session: Session, args: Args) -> None:
    session.name(args.words[0] if args.words else "")
    projects = session.client.projects.list()

    def row(one: dict[str, Any]) -> list[str]:
        name = f"{one['name']} (current)" if one["name"] == session.project else one["name"]
        # The default project has all that it needs, whatever the keys say.
        features = [yes(one["name"] == "default" or one["config"].get(key) == "true") for key in _FEATURES]
        return [name, *features, one["description"], str(len(one["used_by"]))]

    header = ("NAME", "IMAGES", "PROFILES", "STORAGE VOLUMES", "NETWORKS", "DESCRIPTION", "USED BY")
    show(args.format, header, sort_rows([row(one) for one in projects]), projects)


def _create(session: Session, args: Args) -> None:
    name = session.required(args.words[0], "project")
    session.client.projects.create(name, config=assignments(args.config))
    if not session.quiet:
        print(f"Project {name} created")


def _switch(session: Session, args: Args) -> None:
    name = session.required(args.words[0], "project")
    session.client.projects.get(name)
    session.remotes.switch_project(name)


def _info(session: Session, args: Args) -> None:
    state = session.client.projects.state(session.required(args.words[0], "project"))

    def amount(kind: str, value: int) -> str:
        return binary_size(value) if kind in {"disk", "memory"} else str(value)

    rows = []
    for kind, entry in state["resources"].items():
        limit, usage = entry["Limit"], entry["Usage"]
        rows.append([kind.upper(), "UNLIMITED" if limit < 0 else amount(kind, limit), amount(kind, usage)])
    show(args.format, ("RESOURCE", "LIMIT", "USAGE"), sort_rows(rows), state)


COMMANDS = (
    group(
        "project",
        "Manage projects",
        (
            *PROJECT.commands(),
            Command("list", "List projects", "[<remote>:]", _list, words=(0, 1), aliases=("ls",), options=(FORMAT,)),
            Command(
                "create",
                "Create projects",
                "[<remote>:]<project>",
                _create,
                words=(1, 1),
                options=(Option("-c", "--config", help="Config key/value to apply to the new project", kind="list"),),
            ),
            Command(
                "switch",
                "Switch the current project",
                "[<remote>:]<project>",
                _switch,
                words=(1, 1),
                complete=("project",),
                examples=(("project switch shop", "Work in a project until another switch."),),
            ),
            Command(
                "info",
                "Get a summary of resource allocations",
                "[<remote>:]<project>",
                _info,
                words=(1, 1),
                options=(FORMAT,),
                complete=("project",),
            ),
        ),
    ),
)
