"""`pylxc image`."""

from __future__ import annotations

import sys

from pylxc.cli.edit import edit
from pylxc.cli.entity import group
from pylxc.cli.grammar import FORMAT, Args, Command, Option, UsageError
from pylxc.cli.output import format_time, parse_time, show, sort_rows, yes
from pylxc.errors import NotFound, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pylxc.cli.session import Session

FIELDS = ("auto_update", "properties", "public", "expires_at", "profiles")
DEFAULT_COLUMNS = "lfpdatsu"
RECIPE_COLUMNS = "Ldat"


def resolve(session: Session, text: str) -> str:
    """Return the fingerprint of `[remote:]image` on the local server."""
    remote, name = session.split(text)
    if remote.protocol != "lxd":
        raise NotSupported(f"Images of the remote {remote.name!r} can only be launched", hint=f"pylxc launch {text}")
    try:
        return session.client.images.resolve(name)
    except NotFound:
        raise NotFound(f"Image {name!r} not found", hint="pylxc image list shows those that are here") from None


def _aliases(image: dict[str, Any]) -> list[str]:
    return sorted((alias["name"] for alias in image.get("aliases") or []), key=lambda name: (len(name), name))


def _short_alias(image: dict[str, Any]) -> str:
    names = _aliases(image)
    return f"{names[0]} ({len(names) - 1} more)" if len(names) > 1 else names[0] if names else ""


def _uploaded(image: dict[str, Any]) -> str:
    stamp = parse_time(image.get("uploaded_at", ""))
    if stamp is None:
        return ""
    hour = stamp.hour % 12 or 12
    return f"{stamp:%b} {stamp.day}, {stamp.year} at {hour}:{stamp:%M}{'am' if stamp.hour < 12 else 'pm'} ({stamp:%Z})"


COLUMNS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "l": ("ALIAS", _short_alias),
    "L": ("ALIASES", lambda i: "\n".join(_aliases(i))),
    "f": ("FINGERPRINT", lambda i: str(i.get("fingerprint", ""))[:12]),
    "F": ("FINGERPRINT", lambda i: str(i.get("fingerprint", ""))),
    "p": ("PUBLIC", lambda i: "yes" if i["public"] else "no"),
    "d": ("DESCRIPTION", lambda i: str(i["properties"].get("description", ""))),
    "a": ("ARCHITECTURE", lambda i: str(i["architecture"])),
    "t": ("TYPE", lambda i: str(i.get("type", "container")).upper()),
    "s": ("SIZE", lambda i: f"{i.get('size', 0) / (1 << 20):.2f}MB"),
    "u": ("UPLOAD DATE", _uploaded),
}


def _matches(image: dict[str, Any], text: str) -> bool:
    key, equals, value = text.partition("=")
    if equals:
        if key in {"type", "architecture"}:
            return str(image.get(key, "")) == value
        return any(name.startswith(key) and found == value for name, found in image["properties"].items())
    return str(image["fingerprint"]).startswith(text) or any(text in name for name in _aliases(image))


def _list(session: Session, args: Args) -> None:
    words = list(args.words)
    protocol = "lxd"
    if words and ":" in words[0]:
        remote, words[0] = session.split(words[0])
        protocol = remote.protocol
    columns = []
    default = DEFAULT_COLUMNS if protocol == "lxd" else RECIPE_COLUMNS
    for letter in (args.columns or default).replace(",", ""):
        if letter not in COLUMNS:
            raise UsageError(f"Unknown column shorthand char {letter!r} in {args.columns!r}", _command("list"))
        columns.append(COLUMNS[letter])
    # What can be built comes in the shape of images that are there.
    images = (
        session.client.images.list()
        if protocol == "lxd"
        else session.client.get("/1.0/pylxc/images", protocol=protocol)
    )
    images = [image for image in images if all(_matches(image, word) for word in words if word)]
    rows = sort_rows([[cell(image) for _, cell in columns] for image in images])
    show(args.format, [title for title, _ in columns], rows, images)


def _info(session: Session, args: Args) -> None:
    image = session.client.images.get(resolve(session, args.words[0]))
    lines = [
        f"Fingerprint: {image['fingerprint']}",
        f"Size: {image['size'] / (1 << 20):.2f}MB",
        f"Architecture: {image['architecture']}",
        f"Type: {image.get('type') or 'container'}",
        f"Public: {yes(image['public']).lower()}",
        "Timestamps:",
    ]
    if created := format_time(image["created_at"]):
        lines.append(f"    Created: {created}")
    lines += [
        f"    Uploaded: {format_time(image['uploaded_at'])}",
        f"    Expires: {format_time(image['expires_at'], 'never')}",
        f"    Last used: {format_time(image['last_used_at'], 'never')}",
        "Properties:",
    ]
    lines += [f"    {key}: {value}" for key, value in sorted(image["properties"].items())]
    lines.append("Aliases:")
    for alias in image.get("aliases") or []:
        lines.append(f"    - {alias['name']}")
    lines.append(f"Cached: {yes(image['cached']).lower()}")
    lines.append(f"Auto update: {'enabled' if image['auto_update'] else 'disabled'}")
    if source := image.get("update_source"):
        names = {"server": "Server", "protocol": "Protocol", "alias": "Alias"}
        lines += ["Source:", *(f"    {title}: {source.get(key, '')}" for key, title in names.items())]
    lines += ["Profiles:", *(f"    - {name}" for name in image.get("profiles") or [])]
    print("\n".join(lines))


def _change(session: Session, text: str, change: Callable[[dict[str, Any]], None]) -> None:
    fingerprint = resolve(session, text)
    reply = session.client.images.read(fingerprint)
    fields = {key: reply.metadata[key] for key in FIELDS if key in reply.metadata}
    change(fields)
    session.client.images.update(fingerprint, fields, if_match=reply.etag)


def _show(session: Session, args: Args) -> None:
    from pylxc.cli import yamltext

    image = session.client.images.get(resolve(session, args.words[0]))
    sys.stdout.write(yamltext.dump({key: image[key] for key in FIELDS if key in image}))


def _edit(session: Session, args: Args) -> None:
    fingerprint = resolve(session, args.words[0])
    reply = session.client.images.read(fingerprint)
    fields = {key: reply.metadata[key] for key in FIELDS if key in reply.metadata}
    edit("image", fields, lambda new: session.client.images.update(fingerprint, new, if_match=reply.etag))


def _get_property(session: Session, args: Args) -> None:
    properties = session.client.images.get(resolve(session, args.words[0]))["properties"]
    if args.words[1] not in properties:
        raise NotFound("Property not found")
    print(properties[args.words[1]])


def _set_property(session: Session, args: Args) -> None:
    _change(session, args.words[0], lambda fields: fields["properties"].update({args.words[1]: args.words[2]}))


def _unset_property(session: Session, args: Args) -> None:
    def change(fields: dict[str, Any]) -> None:
        if args.words[1] not in fields["properties"]:
            raise NotFound("Property not found")
        del fields["properties"][args.words[1]]

    _change(session, args.words[0], change)


def _delete(session: Session, args: Args) -> None:
    for word in args.words:
        session.wait(session.client.images.delete(resolve(session, word)), f"Deleting {word}")


def _refresh(session: Session, args: Args) -> None:
    for word in args.words:
        operation = session.wait(session.client.images.refresh(resolve(session, word)), f"Refreshing {word}")
        if not session.quiet:
            fresh = operation.metadata.get("refreshed", True)
            print("Image refreshed successfully!" if fresh else "Image already up to date.")


def _import(session: Session, args: Args) -> None:
    from pylxc.cli.image_files import import_image

    import_image(session, args)


def _export(session: Session, args: Args) -> None:
    from pylxc.cli.image_files import export_image

    export_image(session, args, resolve(session, args.words[0]))


def _alias_list(session: Session, args: Args) -> None:
    words = list(args.words)
    if words and ":" in words[0]:
        first = session.name(words.pop(0))
        words = [word for word in [first, *words] if word]
    aliases = [
        alias
        for alias in session.client.images.aliases()
        if all(word in alias["name"] or alias["target"].startswith(word) for word in words)
    ]
    rows = [[a["name"], a["target"][:12], str(a.get("type") or "container").upper(), a["description"]] for a in aliases]
    show(args.format, ("ALIAS", "FINGERPRINT", "TYPE", "DESCRIPTION"), sort_rows(rows), aliases)


def _alias_create(session: Session, args: Args) -> None:
    session.client.images.create_alias(session.required(args.words[0], "alias"), args.words[1])


def _alias_delete(session: Session, args: Args) -> None:
    session.client.images.delete_alias(session.required(args.words[0], "alias"))


def _alias_rename(session: Session, args: Args) -> None:
    session.client.images.rename_alias(session.required(args.words[0], "alias"), args.words[1])


def _command(name: str) -> Command:
    command = COMMANDS[0].child(name)
    assert command is not None
    command.path = f"image {name}"
    return command


_ONE = "[<remote>:]<image>"
_IMAGE = ("image", "")

_ALIAS = group(
    "alias",
    "Manage image aliases",
    (
        Command(
            "create",
            "Create aliases for existing images",
            "[<remote>:]<alias> <fingerprint>",
            _alias_create,
            words=(2, 2),
            complete=("", "image"),
        ),
        Command(
            "delete",
            "Delete image aliases",
            "[<remote>:]<alias>",
            _alias_delete,
            words=(1, 1),
            aliases=("rm",),
            complete=_IMAGE,
        ),
        Command(
            "list",
            "List image aliases",
            "[<remote>:] [<filters>...]",
            _alias_list,
            words=(0, None),
            aliases=("ls",),
            options=(FORMAT,),
        ),
        Command(
            "rename",
            "Rename aliases",
            "[<remote>:]<alias> <new-name>",
            _alias_rename,
            words=(2, 2),
            aliases=("mv",),
            complete=_IMAGE,
        ),
    ),
)

COMMANDS = (
    group(
        "image",
        "Manage images",
        (
            _ALIAS,
            Command(
                "delete",
                "Delete images",
                f"{_ONE} [{_ONE}...]",
                _delete,
                words=(1, None),
                aliases=("rm",),
                complete=("image",),
            ),
            Command("edit", "Edit image properties", _ONE, _edit, words=(1, 1), complete=_IMAGE),
            Command(
                "export",
                "Export and download images",
                f"{_ONE} [<target>]",
                _export,
                words=(1, 2),
                complete=("image", "file"),
                details="The target is a directory or a file name; it defaults to the working directory.",
            ),
            Command(
                "get-property", "Get image properties", f"{_ONE} <key>", _get_property, words=(2, 2), complete=_IMAGE
            ),
            Command(
                "import",
                "Import image into the image store",
                "<tarball>|<directory>|<URL> [<rootfs tarball>] [<remote>:] [key=value...]",
                _import,
                words=(1, None),
                options=(
                    Option("--alias", help="New aliases to add to the image", kind="list"),
                    Option("--public", help="Make image public"),
                ),
                complete=("file",),
            ),
            Command("info", "Show useful information about images", _ONE, _info, words=(1, 1), complete=_IMAGE),
            Command(
                "list",
                "List images",
                "[<remote>:] [<filter>...]",
                _list,
                words=(0, None),
                aliases=("ls",),
                options=(
                    Option("-c", "--columns", help=f'Columns (default "{DEFAULT_COLUMNS}")', kind="value"),
                    FORMAT,
                ),
                details="""
A filter is KEY=VALUE for a property, or a part of the fingerprint or of an alias.

Columns:
  l Shortest alias   L All aliases     f Fingerprint, short   F Fingerprint   p Public
  d Description      a Architecture    s Size                 u Upload date   t Type
""",
                examples=(("image list recipe:", "Show what can be built here."),),
            ),
            Command(
                "refresh",
                "Refresh images",
                f"{_ONE} [{_ONE}...]",
                _refresh,
                words=(1, None),
                complete=("image",),
            ),
            Command(
                "set-property",
                "Set image properties",
                f"{_ONE} <key> <value>",
                _set_property,
                words=(3, 3),
                complete=_IMAGE,
            ),
            Command("show", "Show image properties", _ONE, _show, words=(1, 1), complete=_IMAGE),
            Command(
                "unset-property",
                "Unset image properties",
                f"{_ONE} <key>",
                _unset_property,
                words=(2, 2),
                complete=_IMAGE,
            ),
        ),
    ),
)
