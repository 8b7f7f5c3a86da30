"""The names that completion offers: what the server has of a kind, remotes, configuration keys.

A kind may depend on the words before: "snapshot" is one of the instance that the first word names.
"""

from __future__ import annotations

import os

from pylxc.cli import settings
from pylxc.cli.remotes import Remotes
from pylxc.client.client import Client
from pylxc.client.http import quote
from pylxc.errors import PylxcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Candidate = tuple[str, str]

FILES = ":files"
"""Stands for the names of files, which the shell knows."""

_PATHS = {
    "fingerprint": "certificates",
    "network": "networks",
    "operation": "operations",
    "pool": "storage-pools",
    "profile": "profiles",
    "project": "projects",
    "warning": "warnings",
}
_NAMES = {"fingerprint": "fingerprint", "operation": "id", "warning": "uuid"}
_DESCRIPTIONS = {"fingerprint": "name", "warning": "type"}


def names(kinds: str, prefix: str, given: Sequence[str]) -> Iterator[Candidate]:
    """Yield the names of some kinds, as (word, description); none of those that are not to be had.

    Args:
        kinds: kinds with `|` between them; one that begins with `=` is the word that follows.
        prefix: what has been written of the name.
        given: the words of the command that come before.
    """
    if kinds == "file":
        yield FILES, ""
        return
    project = os.environ.get("PYLXC_PROJECT") or settings.local_project() or "default"
    client = Client(project=project)  # never starts a daemon
    for kind in kinds.split("|"):
        if kind.startswith("="):
            yield kind[1:], ""
            continue
        try:
            yield from _names(client, kind, prefix, given)
        except (PylxcError, OSError, KeyError, IndexError):
            continue


def _names(client: Client, kind: str, prefix: str, given: Sequence[str]) -> Iterator[Candidate]:
    first, _, rest = kind.partition(" ")
    if kind in {"instance", "instance/"}:
        yield from _instances(client, kind, prefix)
    elif kind in {"remote", "remote:"}:
        end = kind.removeprefix("remote")
        yield from ((remote.name + end, remote.addr) for remote in Remotes.load().all())
    elif kind == "image":
        yield from _images(client, prefix)
    elif kind == "snapshot":
        yield from ((one["name"], "") for one in client.instances.snapshots.list(given[0]))
    elif kind in {"volume", "pool/volume"}:
        yield from _volumes(client, kind, prefix, given)
    elif kind == "forward":
        yield from ((one["listen_address"], one["description"]) for one in _forwards(client, given))
    elif rest.rstrip("=") == "key":
        yield from _keys(client, first, rest.removeprefix("key"))
    elif rest == "device":
        devices = client.get(f"/1.0/{first}s/{quote(given[0])}")["devices"]
        yield from ((name, device["type"]) for name, device in devices.items())
    elif kind in _PATHS:
        name, what = _NAMES.get(kind, "name"), _DESCRIPTIONS.get(kind, "description")
        found = client.operations.list() if kind == "operation" else client.get(f"/1.0/{_PATHS[kind]}", recursion=1)
        yield from ((one[name], one.get(what, "")) for one in found)


def _instances(client: Client, kind: str, prefix: str) -> Iterator[Candidate]:
    """Yield instances; behind a slash their snapshots, or for "instance/" their files."""
    name, slash, path = prefix.partition("/")
    if not slash:
        end = kind.removeprefix("instance")
        yield from ((one["name"] + end, f"{one['status']}") for one in client.instances.list())
    elif kind == "instance":
        yield from ((f"{name}/{one['name']}", "") for one in client.instances.snapshots.list(name))
    else:
        above = path.rpartition("/")[0]
        _, response = client.instances.files(name).open(f"/{above}")
        base = f"{name}/{above}/" if above else f"{name}/"
        yield from ((base + entry, "") for entry in client.instances.files(name).entries(response))


def _images(client: Client, prefix: str) -> Iterator[Candidate]:
    """Yield images that are here or can be built here; what servers have would have to be asked for, which is slow."""
    if ":" not in prefix:
        yield from ((f"{remote.name}:", remote.addr) for remote in Remotes.load().all() if not remote.is_server)
    for start, images in (("", client.images.list()), ("recipe:", client.images.elsewhere({"protocol": "recipe"}))):
        for image in images:
            what = image["properties"].get("description", "")
            yield from ((f"{start}{alias['name']}", what) for alias in image["aliases"])


def _volumes(client: Client, kind: str, prefix: str, given: Sequence[str]) -> Iterator[Candidate]:
    pool, slash, _ = (given[0], "", "") if kind == "volume" else prefix.partition("/")
    if kind == "pool/volume" and not slash:
        yield from ((f"{name}/", "") for name in client.storage_pools.names())
        return
    found = client.storage_pools.volumes(pool).list()
    yield from ((f"{pool}{slash}{one['name']}" if slash else one["name"], one["description"]) for one in found)


def _forwards(client: Client, given: Sequence[str]) -> list[dict[str, str]]:
    return list(client.get(f"/1.0/networks/{quote(given[0])}/forwards", recursion=1))


def _keys(client: Client, entity: str, end: str) -> Iterator[Candidate]:
    """Yield the configuration keys of a kind of object, each followed by `end`."""
    for groups in (client.get("/1.0/metadata/configuration")["configs"][entity]).values():
        for described in groups["keys"]:
            for key, what in described.items():
                if "*" not in key and not key.startswith("volatile."):
                    yield key + end, what["shortdesc"]
