"""The host's apt sources: which mirror of an archive the host uses, and how it reaches it.

Both forms are read, one-line (*.list) and deb822 (*.sources). See: sources.list(5)
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pylxc.errors import PylxcError
from pylxc.kernel import command

_ONE_LINE = re.compile(r"^\s*deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>[^#]*)")
_FETCHED = ("http", "https")
_PASSED_ON = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date")


@dataclass(frozen=True, slots=True)
class Source:
    """A `deb` entry. `signed_by` is a key ring's path, "" for apt's own trust."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""


def host_sources(root: str = "/etc/apt") -> list[Source]:
    """Return the host's enabled `deb` sources in the order of their files; unreadable entries are skipped."""
    found: list[Source] = []
    for path in [f"{root}/sources.list", *sorted(glob.glob(f"{root}/sources.list.d/*"))]:
        if not path.endswith((".list", ".sources")) or not os.path.isfile(path):
            continue
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
        found += _deb822(text) if path.endswith(".sources") else _one_line(text)
    return found


def mirror(sources: Iterable[Source], archive: str) -> str | None:
    """Return the host's mirror of an archive, the last part of whose address is its name ("debian").

    Only what can be fetched over HTTP counts: an image must be able to use it too.
    """
    for source in sources:
        scheme, _, place = source.uri.partition("://")
        if scheme in _FETCHED and place.rstrip("/").endswith(f"/{archive}"):
            return source.uri.rstrip("/")
    return None


def host_options() -> list[str]:
    """Return the host's apt options that decide how an archive is reached, each as `Name "value";`."""
    try:
        dump = command.run(["apt-config", "dump"], timeout=20).stdout.decode(errors="replace")
    except PylxcError:  # no apt here: nothing to pass on
        return []
    names = tuple(f"{name.lower()} " for name in _PASSED_ON)
    return [line for line in dump.splitlines() if line.lower().startswith(names)]


def _one_line(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        if match := _ONE_LINE.match(line):
            options = dict(option.partition("=")[::2] for option in (match["options"] or "").split())
            yield Source(match["uri"], match["suite"], tuple(match["components"].split()), options.get("signed-by", ""))


def _deb822(text: str) -> Iterator[Source]:
    for stanza in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        signed_by = fields.get("signed-by", "")
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                components = tuple(fields.get("components", "").split())
                yield Source(uri, suite, components, signed_by if signed_by.startswith("/") else "")
