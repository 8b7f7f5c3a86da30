"""`pylxc image list` and `image alias list`: what is here, and what other places have."""

from __future__ import annotations

from pylxc.cli.grammar import Args, UsageError
from pylxc.cli.list_filter import full_match, key_matches
from pylxc.cli.output import long_time, show, sort_rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pylxc.cli.remotes import Remote
    from pylxc.cli.session import Session

DEFAULT_COLUMNS = "lfpdatsu"
# What is not built yet has no fingerprint, size or date.
RECIPE_COLUMNS = "Ldat"


def names(image: dict[str, Any]) -> list[str]:
    """Return the aliases of an image, shortest first."""
    return sorted((alias["name"] for alias in image.get("aliases") or []), key=lambda name: (len(name), name))


def _short_alias(image: dict[str, Any]) -> str:
    found = names(image)
    return f"{found[0]} ({len(found) - 1} more)" if len(found) > 1 else found[0] if found else ""


def _uploaded(image: dict[str, Any]) -> str:
    text = image.get("uploaded_at", "")
    if text not in _DATES:
        _DATES[text] = long_time(text)
    return _DATES[text]


_DATES: dict[str, str] = {}
"""What was formatted: public servers have thousands of images, and build many on the same day."""


COLUMNS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "l": ("ALIAS", _short_alias),
    "L": ("ALIASES", lambda i: "\n".join(names(i))),
    "f": ("FINGERPRINT", lambda i: str(i.get("fingerprint", ""))[:12]),
    "F": ("FINGERPRINT", lambda i: str(i.get("fingerprint", ""))),
    "p": ("PUBLIC", lambda i: "yes" if i["public"] else "no"),
    "d": ("DESCRIPTION", lambda i: str(i["properties"].get("description", ""))),
    "a": ("ARCHITECTURE", lambda i: str(i["architecture"])),
    "t": ("TYPE", lambda i: str(i.get("type", "container")).upper()),
    "s": ("SIZE", lambda i: f"{i.get('size', 0) / (1 << 20):.2f}MB"),
    "u": ("UPLOAD DATE", _uploaded),
}


def matches(image: dict[str, Any], text: str) -> bool:
    """Return whether an image satisfies a filter: KEY=VALUE, or a part of its fingerprint or of an alias."""
    key, equals, value = text.partition("=")
    if not equals:
        return text in str(image["fingerprint"]) or any(text in name for name in names(image))
    if key in image and isinstance(image[key], str | bool) and _text(image[key]) == value:
        return True
    found = [held for name, held in image["properties"].items() if key_matches(key, name)]
    if key and "architecture".startswith(key):
        found.append(image["architecture"])  # the kernel's name of it; the property has Debian's on public servers
    return value in found or any(full_match(value, held) for held in found)


def _text(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value


def images_of(session: Session, remote: Remote) -> list[dict[str, Any]]:
    """Return all images of a remote."""
    return session.client.images.list() if remote.is_server else session.client.images.elsewhere(session.place(remote))


def split_remote(session: Session, words: list[str]) -> tuple[Remote, list[str]]:
    """Return the remote that the first of `words` may name, and the filters."""
    has_remote = bool(words) and ":" in words[0] and "=" not in words[0]
    remote, first = session.split(words[0] if has_remote else "")
    return remote, [word for word in (first, *words[has_remote:]) if word]


def list_images(session: Session, args: Args) -> None:
    """Print the images of a remote."""
    import gc

    gc.disable()  # thousands of images are thousands of maps, none of them garbage
    remote, filters = split_remote(session, args.words)
    columns = []
    default = RECIPE_COLUMNS if remote.protocol == "recipe" else DEFAULT_COLUMNS
    for letter in (args.columns or default).replace(",", ""):
        if letter not in COLUMNS:
            raise UsageError(f"Unknown column shorthand char {letter!r} in {args.columns!r}")
        columns.append(COLUMNS[letter])
    images = [image for image in images_of(session, remote) if all(matches(image, text) for text in filters)]
    rows = sort_rows([[cell(image) for _, cell in columns] for image in images])
    show(args.format, [title for title, _ in columns], rows, images)


def list_aliases(session: Session, args: Args) -> None:
    """Print the aliases of a remote."""
    remote, filters = split_remote(session, args.words)
    if remote.is_server:
        aliases = session.client.images.aliases()
    else:
        aliases = [
            {"description": "", "name": name, "target": image["fingerprint"], "type": image.get("type", "container")}
            for image in images_of(session, remote)
            for name in names(image)
        ]
    aliases = [one for one in aliases if all(text in one["name"] or text in one["target"] for text in filters)]
    rows = [[a["name"], a["target"][:12], str(a.get("type") or "container").upper(), a["description"]] for a in aliases]
    show(args.format, ("ALIAS", "FINGERPRINT", "TYPE", "DESCRIPTION"), sort_rows(rows), aliases)
