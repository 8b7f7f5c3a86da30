"""The archives that a recipe's image is made of: mirrors, keys, and the forms in which apt is told of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from urllib.parse import urlsplit

from pylxc.drivers.image.apt import Source, mirror
from pylxc.drivers.image.recipe_file import Recipe
from pylxc.errors import BadRequest, Internal

_MIRRORS = {
    "debian": "http://deb.debian.org/debian",
    "debian-security": "http://deb.debian.org/debian-security",
    "ubuntu": "http://archive.ubuntu.com/ubuntu",
    "ubuntu-ports": "http://ports.ubuntu.com/ubuntu-ports",
}
"""Where an archive is fetched from when the host itself does not use it."""

_PORTS = {"ubuntu": (("amd64", "i386"), "ubuntu-ports")}
"""Archives that have these architectures only, and the one that has the others."""

_KEYRINGS = "/usr/share/keyrings"
_PACKAGES = {"ubuntu-archive-keyring": "ubuntu-keyring"}
"""Packages of key rings that are not called like them."""


def sources(recipe: Recipe, architecture: str, host: Iterable[Source]) -> list[Source]:
    """Return what a recipe's packages come from.

    Args:
        recipe: the recipe.
        architecture: Debian's name of the image's.
        host: the host's own sources, whose mirrors are used where the recipe says so.

    Raises:
        BadRequest: the recipe's archive has no mirror that is known.
        Internal: the archive's keys are not on this host.
    """
    host = list(host)
    keyring = f"{_KEYRINGS}/{recipe.keyring}.gpg" if recipe.keyring else ""
    if keyring and not os.path.exists(keyring):
        package = _PACKAGES.get(recipe.keyring, recipe.keyring)
        raise Internal(
            f"The recipe {recipe.name!r} needs the key ring {keyring}, which is missing",
            hint=f"the package {package} has it",
        )
    archive = recipe.archive
    known, ports = _PORTS.get(archive, ((architecture,), archive))
    if architecture not in known:
        archive = ports

    def place(name: str) -> str:
        chosen = mirror(host, name) if recipe.mirror == "host" else None
        if chosen is None and recipe.mirror != "host" and name == archive:
            chosen = recipe.mirror
        if chosen is None and name not in _MIRRORS:
            raise BadRequest(f"Recipe {recipe.name!r}: no mirror of {name!r} is known", hint="give it as 'mirror'")
        return chosen or _MIRRORS[name]

    found = [Source(place(archive), suite, recipe.components, keyring) for suite in recipe.suites]
    if recipe.security:
        found.append(Source(place(f"{archive}-security"), recipe.security, recipe.components, keyring))
    return found


def one_line(source: Source) -> str:
    """Return a source as sources.list has it."""
    options = f"[signed-by={source.signed_by}] " if source.signed_by else ""
    return f"deb {options}{source.uri} {source.suite} {' '.join(source.components)}"


def deb822(found: list[Source]) -> str:
    """Return the sources as the guest will use them: where the host's mirror is the host itself, the public one."""
    stanzas = []
    for source in found:
        uri = source.uri
        if urlsplit(uri).hostname in ("localhost", "127.0.0.1", "::1"):
            uri = _MIRRORS.get(uri.rpartition("/")[2], uri)
        fields = {"Types": "deb", "URIs": uri, "Suites": source.suite, "Components": " ".join(source.components)}
        fields |= {"Signed-By": source.signed_by} if source.signed_by else {}
        stanzas.append("".join(f"{key}: {value}\n" for key, value in fields.items()))
    return "\n".join(stanzas)
