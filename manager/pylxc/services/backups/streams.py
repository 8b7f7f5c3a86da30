"""The optimized form of backups: btrfs streams and a header that says of what. See: LXD doc backup, LXD 5.0."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pylxc.errors import BadRequest, Internal
from pylxc.services.backups import document
from pylxc.services.storage.places import Place
from pylxc.services.unarchive import Extractor, Shift, Stream

HEADER = "backup/optimized_header.yaml"
_MAX_STREAMS = 100_000
_MEMBERS = {
    "container": ("backup/container", "backup/snapshots"),
    "custom": ("backup/volume", "backup/volume-snapshots"),
}


def members(place: Place) -> tuple[str, str]:
    """Return what a volume is called in a backup, and the directory of its snapshots."""
    return _MEMBERS[place.kind]


def member(place: Place) -> str:
    """Return what a volume or a snapshot is called in a backup."""
    own, snapshots = members(place)
    return f"{snapshots}/{place.snapshot}" if place.snapshot else own


class StreamFiles:
    """Files for the streams of a volume and its snapshots, and then the header.

    Args:
        directory: where backup/ is made.
        place: the volume.
        snapshots: the names of those that go with it, before it.

    Attributes:
        names: of the files, in their order.
    """

    def __init__(self, directory: str, place: Place, snapshots: Sequence[str]) -> None:
        self._directory = directory
        self._places = [*(place.at(name) for name in snapshots), place]
        self._header: list[dict[str, Any]] = []
        self.names: list[str] = []

    @contextmanager
    def sink(self, number: int, path: str) -> Iterator[int]:
        """See `Sink` of storage drivers."""
        place = self._places[number]
        name = _file(place, path)
        if name in self.names:
            raise Internal(f"Two subvolumes would have one name in the backup: {path!r}", hint="rename one of them")
        self._header.append(
            {"path": path, "snapshot": place.snapshot, "readonly": bool(place.snapshot) and path == "/"}
        )
        self.names.append(name)
        os.makedirs(os.path.dirname(f"{self._directory}/{name}"), exist_ok=True)
        fd = os.open(f"{self._directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)

    def header(self) -> str:
        """Return what the header says."""
        return document.dump({"subvolumes": self._header})


def plan(extractor: Extractor, path: str, place: Place, snapshots: Mapping[str, Shift | None]) -> list[Stream]:
    """Return the streams of a backup that make subvolumes called by their numbers, snapshots first.

    Args:
        extractor: reads the backup.
        path: the backup.
        place: the volume.
        snapshots: how ids are shifted in each, oldest first, and with "" the volume's own at the end.

    Raises:
        BadRequest: its header is missing or malformed.
    """
    return document.parse(
        extractor.read(path, HEADER, document.MAX_BYTES),
        "backup",
        "optimized_header.yaml",
        lambda data: _plan(data, place, snapshots),
    )


def _plan(data: dict[str, Any], place: Place, snapshots: Mapping[str, Shift | None]) -> list[Stream]:
    paths: dict[str, list[str]] = {name: [] for name in snapshots}
    entries = data["subvolumes"]
    if len(entries) > _MAX_STREAMS:
        raise BadRequest("it has too many subvolumes")
    for entry in entries:
        path, name = str(entry["path"]), str(entry.get("snapshot") or "")
        if name not in paths:
            raise BadRequest(f"its index has no snapshot {name[:80]!r}")
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise BadRequest(f"a subvolume has the path {path[:80]!r}")
        paths[name].append(path)
    found: list[Stream] = []
    before: list[str] = []
    for number, (name, shift) in enumerate(snapshots.items()):
        if paths[name][:1] != ["/"] or len(set(paths[name])) < len(paths[name]):
            raise BadRequest("its subvolumes are listed in disorder")
        found += [
            Stream(
                member=_file(place.at(name), path),
                directory=_at(number, path),
                parent=_at(number - 1, path) if path in before else "",
                shift=shift,
            )
            for path in paths[name]
        ]
        before = paths[name]
    return found


def _at(number: int, path: str) -> str:
    return f"{number}{path}".rstrip("/")


def _file(place: Place, path: str) -> str:
    inner = path.strip("/").replace("/", "-")
    return f"{member(place)}_{inner}.bin" if inner else f"{member(place)}.bin"
