"""`pylxc image copy`: an image of another place, kept here."""

from __future__ import annotations

from pylxc.cli.grammar import Args
from pylxc.cli.image_list import names
from pylxc.errors import BadRequest, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session


def copy_image(session: Session, args: Args) -> None:
    """Copy the image `[remote:]image` to the local server.

    Raises:
        BadRequest: the words are no image and a remote, or it is here already.
        NotSupported: a mode of copying between servers.
    """
    remote, name = session.split(args.words[0])
    if not name:
        raise BadRequest(f"The name of the image is missing in {args.words[0]!r}")
    if session.name(args.words[1]):
        raise BadRequest("Can't provide a name for the target image", hint="its aliases are given by --alias")
    if remote.is_server:
        raise BadRequest("The source and target servers must be different")
    if args.mode != "pull":
        raise NotSupported(f"Images of {remote.name!r} can be copied in mode pull only")
    place = {**session.place(remote), "alias": name}
    aliases = list(args.alias)
    if args.copy_aliases:
        (image,) = session.client.images.elsewhere(place)
        aliases += [alias for alias in names(image) if alias not in aliases]
    body: dict[str, Any] = {
        "source": {"type": "image", "mode": "pull", **place},
        "auto_update": args.auto_update,
        "public": args.public,
    }
    client = session.client
    client.project = args.target_project or client.project
    operation = session.wait(client.start("POST", "/1.0/images", body), f"Copying {args.words[0]}")
    for alias in aliases:
        client.images.point_alias(alias, str(operation.metadata["fingerprint"]))
    if not session.quiet:
        print("Image copied successfully!")
