"""`pylxc image`."""

from __future__ import annotations

import sys

from pylxc.cli.edit import edit
from pylxc.cli.entity import group
from pylxc.cli.grammar import FORMAT, Args, Command, Option
from pylxc.cli.image_list import DEFAULT_COLUMNS, list_aliases, list_images
from pylxc.cli.output import format_time, plain, yes
from pylxc.errors import BadRequest, NotFound, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pylxc.cli.session import Session

FIELDS = ("auto_update", "properties", "public", "expires_at", "profiles")


def resolve(session: Session, text: str) -> str:
    """Return the fingerprint of `[remote:]image` on the local server.

    Raises:
        NotFound: there is no such image.
        NotSupported: it is elsewhere.
    """
    remote, name = session.split(text)
    if not remote.is_server:
        hint = f"a copy can be: pylxc image copy {text} local:"
        raise NotSupported(f"Images of the remote {remote.name!r} can only be launched and copied", hint=hint)
    try:
        return session.client.images.resolve(name)
    except NotFound:
        raise NotFound(f"Image {name!r} not found", hint="pylxc image list shows those that are here") from None


def _look_up(session: Session, text: str) -> dict[str, Any]:
    """Return the image `[remote:]image`, wherever it is."""
    remote, name = session.split(text)
    if remote.is_server:
        return session.client.images.get(resolve(session, text))
    if not name:
        raise BadRequest(f"The name of the image is missing in {text!r}")
    return session.client.images.elsewhere({**session.place(remote), "alias": name})[0]


def _info(session: Session, args: Args) -> None:
    image = _look_up(session, args.words[0])
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
    profiles = image.get("profiles") or []
    lines += ["Profiles:", *(f"    - {name}" for name in profiles)] if profiles else ["Profiles: []"]
    print(plain("\n".join(lines)))


def _change(session: Session, text: str, change: Callable[[dict[str, Any]], object]) -> None:
    fingerprint = resolve(session, text)
    reply = session.client.images.read(fingerprint)
    fields = {key: reply.metadata[key] for key in FIELDS if key in reply.metadata}
    change(fields)
    session.client.images.update(fingerprint, fields, if_match=reply.etag)


def _show(session: Session, args: Args) -> None:
    from pylxc.cli import yamltext

    image = _look_up(session, args.words[0])
    sys.stdout.write(yamltext.dump({key: image[key] for key in FIELDS if key in image}))


def _edit(session: Session, args: Args) -> None:
    fingerprint = resolve(session, args.words[0])
    reply = session.client.images.read(fingerprint)
    fields = {key: reply.metadata[key] for key in FIELDS if key in reply.metadata}
    edit("image", fields, lambda new: session.client.images.update(fingerprint, new, if_match=reply.etag))


def _get_property(session: Session, args: Args) -> None:
    properties = _look_up(session, args.words[0])["properties"]
    if args.words[1] not in properties:
        raise NotFound("Property not found")
    print(properties[args.words[1]])


def _set_property(session: Session, args: Args) -> None:
    _change(session, args.words[0], lambda fields: fields["properties"].update({args.words[1]: args.words[2]}))


def _unset_property(session: Session, args: Args) -> None:
    _change(session, args.words[0], lambda fields: fields["properties"].pop(args.words[1], None))


def _delete(session: Session, args: Args) -> None:
    for word in args.words:
        session.wait(session.client.images.delete(resolve(session, word)), f"Deleting {word}")


def _refresh(session: Session, args: Args) -> None:
    for word in args.words:
        operation = session.wait(session.client.images.refresh(resolve(session, word)), f"Refreshing {word}")
        if not session.quiet:
            fresh = operation.metadata.get("refreshed", True)
            print("Image refreshed successfully!" if fresh else "Image already up to date.")


def _copy(session: Session, args: Args) -> None:
    from pylxc.cli.image_copy import copy_image

    copy_image(session, args)


def _build(session: Session, args: Args) -> None:
    from pylxc.cli.image_build import build_image

    build_image(session, args)


def _import(session: Session, args: Args) -> None:
    from pylxc.cli.image_files import import_image

    import_image(session, args)


def _export(session: Session, args: Args) -> None:
    from pylxc.cli.image_files import export_image

    export_image(session, args, resolve(session, args.words[0]))


def _alias_create(session: Session, args: Args) -> None:
    session.client.images.create_alias(session.required(args.words[0], "alias"), args.words[1])


def _alias_delete(session: Session, args: Args) -> None:
    session.client.images.delete_alias(session.required(args.words[0], "alias"))


def _alias_rename(session: Session, args: Args) -> None:
    session.client.images.rename_alias(session.required(args.words[0], "alias"), args.words[1])


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
            list_aliases,
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
                "build",
                "Build an image by a recipe of yours",
                "<file>|<URL>|-",
                _build,
                words=(1, 1),
                options=(
                    Option("--alias", help="Aliases of the image (default: the recipe's file name)", kind="list"),
                    Option("--public", help="Make image public"),
                ),
                complete=("file",),
                details="""
The recipe's commands run as root while the image is built. An alias that is taken goes to the new image.
docs/recipes.md tells how recipes are written.
""",
                examples=(("image build web.yaml", "Build the image 'web'."),),
            ),
            Command(
                "copy",
                "Copy images between servers",
                f"{_ONE} <remote>:",
                _copy,
                words=(2, 2),
                aliases=("cp",),
                options=(
                    Option("--alias", help="New aliases to add to the image", kind="list"),
                    Option("--auto-update", help="Keep the image up to date after initial copy"),
                    Option("--copy-aliases", help="Copy aliases from source"),
                    Option(
                        "--mode",
                        help="Transfer mode. One of pull (default), push or relay",
                        kind="value",
                        default="pull",
                        choices=("pull", "push", "relay"),
                    ),
                    Option("--public", help="Make image public"),
                    Option(
                        "--target-project",
                        help="Copy to a project different from the source",
                        kind="value",
                        complete="project",
                    ),
                ),
                complete=("image", "remote:"),
                details="""
With --auto-update the server keeps the image up to date. It requires the source to be an alias.
""",
                examples=(("image copy ubuntu:22.04 local: --alias jammy", "Keep an image of a public server here."),),
            ),
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
                details="""
The target is a directory, in which the files get their names on the server; it defaults to the working directory.
Or it is a file name: an image of one file goes there with its ending added, one of two to NAME and NAME.root.
""",
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
                list_images,
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
