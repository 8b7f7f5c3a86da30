"""`pylxc profile`."""

from __future__ import annotations

from pylxc.cli.devices import Devices
from pylxc.cli.edit import stdin_yaml
from pylxc.cli.entity import Entity, group
from pylxc.cli.grammar import Args, Command, Option
from pylxc.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pylxc.cli.session import Session

PROFILE = Entity("profile", "/1.0/profiles", ("config", "description", "devices"), keys="instance")
INSTANCE = Entity(
    "instance",
    "/1.0/instances",
    ("architecture", "config", "devices", "ephemeral", "profiles", "stateful", "description"),
)


def _create(session: Session, args: Args) -> None:
    name = session.required(args.words[0], "profile")
    fields = stdin_yaml("profile")
    session.client.profiles.create(name, **{key: value for key, value in fields.items() if key != "name"})
    if not session.quiet:
        print(f"Profile {name} created")


def _copy(session: Session, args: Args) -> None:
    source, target = session.required(args.words[0], "profile"), session.required(args.words[1], "profile")
    reply = session.client.profiles.read(source)
    project = args.target_project or session.project
    body = {"name": target, **PROFILE.changeable(reply)}
    session.client.request("POST", PROFILE.path, body, query={"project": project})


def _profiles(session: Session, name: str, change: Callable[[list[str]], list[str]]) -> list[str]:
    result: list[str] = []

    def apply(fields: dict[str, Any]) -> None:
        fields["profiles"] = result[:] = change(list(fields["profiles"]))

    INSTANCE.change(session, name, apply)
    return result


def _add(session: Session, args: Args) -> None:
    name, profile = session.required(args.words[0]), args.words[1]
    _profiles(session, name, lambda present: [*present, profile])
    if not session.quiet:
        print(f"Profile {profile} added to {name}")


def _remove(session: Session, args: Args) -> None:
    name, profile = session.required(args.words[0]), args.words[1]

    def change(present: list[str]) -> list[str]:
        if profile not in present:
            raise BadRequest(f"Profile {profile} isn't currently applied to {name}")
        return [one for one in present if one != profile]

    _profiles(session, name, change)
    if not session.quiet:
        print(f"Profile {profile} removed from {name}")


def _assign(session: Session, args: Args) -> None:
    name = session.required(args.words[0])
    wanted = [profile for profile in args.words[1].split(",") if profile]
    _profiles(session, name, lambda _: wanted)
    if not session.quiet:
        print(f"Profiles {','.join(wanted) or '(none)'} applied to {name}")


_ON_INSTANCE = "[<remote>:]<instance> <profile>"
_BOTH = ("instance", "profile")

COMMANDS = (
    group(
        "profile",
        "Manage profiles",
        (
            *PROFILE.commands(),
            PROFILE.list_command(
                "List profiles",
                ("NAME", "DESCRIPTION", "USED BY"),
                lambda one: [one["name"], one["description"], str(len(one["used_by"]))],
            ),
            Devices(PROFILE).group(override=False),
            Command("add", "Add profiles to instances", _ON_INSTANCE, _add, words=(2, 2), complete=_BOTH),
            Command("remove", "Remove profiles from instances", _ON_INSTANCE, _remove, words=(2, 2), complete=_BOTH),
            Command(
                "assign",
                "Assign sets of profiles to instances",
                "[<remote>:]<instance> <profiles>",
                _assign,
                words=(2, 2),
                aliases=("apply",),
                complete=_BOTH,
                examples=(
                    ("profile assign c01 default,web", 'Set the profiles of "c01" to "default" and "web".'),
                    ("profile assign c01 ''", 'Remove all profiles from "c01".'),
                ),
            ),
            Command(
                "copy",
                "Copy profiles",
                "[<remote>:]<profile> [<remote>:]<profile>",
                _copy,
                words=(2, 2),
                aliases=("cp",),
                options=(
                    Option(
                        "--target-project",
                        help="Copy to a project different from the source",
                        kind="value",
                        complete="project",
                    ),
                ),
                complete=("profile", ""),
            ),
            Command(
                "create",
                "Create profiles",
                "[<remote>:]<profile>",
                _create,
                words=(1, 1),
                examples=(("profile create web < web.yaml", "Create a profile from YAML."),),
            ),
        ),
    ),
)
