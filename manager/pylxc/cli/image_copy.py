"""`pylxc image copy`: an image of another place, kept by a server."""

from __future__ import annotations

from pylxc.cli.grammar import Args
from pylxc.cli.image_list import names
from pylxc.cli.transfer import Transfer
from pylxc.client.http import quote
from pylxc.errors import BadRequest, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.remotes import Remote
    from pylxc.cli.session import Session
    from pylxc.client.client import Client


def copy_image(session: Session, args: Args) -> None:
    """Copy the image `[remote:]image` to a server.

    Raises:
        BadRequest: the words are no image and a server, or it is here already.
        NotSupported: a mode of copying between servers.
    """
    remote, name = session.peek(args.words[0])
    if not name:
        raise BadRequest(f"The name of the image is missing in {args.words[0]!r}")
    if session.name(args.words[1]):
        raise BadRequest("Can't provide a name for the target image", hint="its aliases are given by --alias")
    target = session.peek(args.words[1])[0]
    if remote.name == target.name:
        raise BadRequest("The source and target servers must be different")
    client = session.client
    client.project = args.target_project or client.project
    if remote.is_server:
        fingerprint, aliases = _between(session, args, remote, name, target)
    else:
        fingerprint, aliases = _fetched(session, args, remote, name)
    for alias in dict.fromkeys([*args.alias, *(aliases if args.copy_aliases else [])]):
        client.images.point_alias(alias, fingerprint)
    if not session.quiet:
        print("Image copied successfully!")


def _fetched(session: Session, args: Args, remote: Remote, name: str) -> tuple[str, list[str]]:
    """Have an image of a place that holds images only copied; return its fingerprint, and its aliases there."""
    if args.mode != "pull":
        raise NotSupported(f"Images of {remote.name!r} can be copied in mode pull only")
    place = {**session.place(remote), "alias": name}
    aliases = names(session.client.images.elsewhere(place)[0]) if args.copy_aliases else []
    source = {"type": "image", "mode": "pull", **place}
    return _pull(session, args, source), aliases


def _between(session: Session, args: Args, remote: Remote, name: str, target: Remote) -> tuple[str, list[str]]:
    """Have an image of another server copied, by a token where it is private; returns what `_fetched` does."""
    there = session.beside(remote)
    try:
        fingerprint = there.images.resolve(name)
        image = there.images.get(fingerprint)
        fingerprint = str(image["fingerprint"])
        if args.mode == "push":
            _push(session, args, there, image, target)
        elif args.mode == "pull":
            source = {"type": "image", "mode": "pull", "protocol": "lxd", **_address(there, session, remote)}
            if image["public"]:
                source["alias"] = name
            else:
                secret = there.start("POST", there.images.url(fingerprint, "secret"), {}).metadata["secret"]
                source |= {"fingerprint": fingerprint, "secret": str(secret)}
            _pull(session, args, source)
        elif args.mode == "relay":
            _relay(session, args, there, image)
        else:
            raise BadRequest(f"Unknown mode {args.mode!r}", hint="pull, push or relay")
        return fingerprint, names(image)
    finally:
        there.close()


def _pull(session: Session, args: Args, source: dict[str, str]) -> str:
    body: dict[str, Any] = {"source": source, "auto_update": args.auto_update, "public": args.public}
    operation = session.wait(session.client.start("POST", "/1.0/images", body), f"Copying {args.words[0]}")
    return str(operation.metadata["fingerprint"])


def _push(session: Session, args: Args, there: Client, image: dict[str, Any], target: Remote) -> None:
    fingerprint = str(image["fingerprint"])
    wanted = {
        "source": {"type": "image", "mode": "push", "fingerprint": fingerprint},
        "properties": image["properties"],
        "expires_at": image["expires_at"],
        "public": args.public,
    }
    token = session.client.start("POST", "/1.0/images", wanted)
    address = _address(session.client, session, target)
    body = {
        "target": address["server"],
        "certificate": address["certificate"],
        "project": address["project"],
        "secret": token.metadata["secret"],
    }
    session.wait(there.start("POST", there.images.url(fingerprint, "export"), body), f"Copying {args.words[0]}")


def _relay(session: Session, args: Args, there: Client, image: dict[str, Any]) -> None:
    """Pass the files on as they come; as they leave one server the other one takes them."""
    fingerprint = str(image["fingerprint"])
    files = there.stream("GET", there.images.url(fingerprint, "export"))
    headers = {"X-LXD-filename": quote(str(image["filename"])), "X-LXD-fingerprint": fingerprint}
    kind = files.headers.get("content-type", "")
    if kind.startswith("multipart/"):
        headers["Content-Type"] = kind
    label = f"Copying {args.words[0]}"
    with Transfer(session, label, files.length or 0) as transfer:
        client = session.client
        operation = client.upload("/1.0/images", files.chunks(), headers=headers, on_bytes=transfer.advance)
    session.wait(operation, label)
    told = {key: image[key] for key in ("properties", "expires_at")}
    client.images.update(fingerprint, {**told, "public": args.public})


def _address(client: Client, session: Session, remote: Remote) -> dict[str, str]:
    """Return where other servers find a server, and its certificate.

    Raises:
        BadRequest: it is on no network.
    """
    environment = client.get("/1.0")["environment"]
    if remote.addr.startswith("https://"):
        server = remote.addr
    elif environment["addresses"]:
        server = f"https://{environment['addresses'][0]}"
    else:
        raise BadRequest("A server isn't listening on the network", hint="pylxc config set core.https_address=:8443")
    certificate = session.remotes.certificate(remote) or str(environment["certificate"])
    return {"server": server, "certificate": certificate, "project": client.project}
