"""The portable form of backups: trees as tar has them. See: LXD doc backup, the layout of LXD 5.0."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack

from pylxc.runtime.tarwords import renamed
from pylxc.services import archive
from pylxc.services.backups.service import OnProgress, Write
from pylxc.services.backups.store import BackupStore
from pylxc.services.storage.places import Place
from pylxc.services.storage.service import StoragePools

INDEX = "backup/index.yaml"
_MEMBERS = {
    "container": ("backup/container", "backup/snapshots"),
    "custom": ("backup/volume", "backup/volume-snapshots"),
}


def member(place: Place) -> str:
    """Return what the tree of a volume or of a snapshot is called in a backup."""
    own, snapshots = _MEMBERS[place.kind]
    return f"{snapshots}/{place.snapshot}" if place.snapshot else own


class PortableWriter:
    """Writes backups of volumes in the portable form; thread-safe."""

    def __init__(self, store: BackupStore, storage: StoragePools) -> None:
        self._store = store
        self._storage = storage

    def write(
        self,
        place: Place,
        snapshots: Sequence[str],
        texts: Mapping[str, str],
        *,
        still: Callable[[], AbstractContextManager[None]] | None,
        compression: str,
        write: Write,
        on_progress: OnProgress,
    ) -> None:
        """Write a backup; see `archive.write_tar`.

        Args:
            place: the volume.
            snapshots: the names of those that go with it.
            texts: files that come first, by their names in the backup; what the tree has under such a name stays out.
            still: see `Volumes.readable`.
            compression: how it is packed.
            write: takes the bytes.
            on_progress: is told how many.

        Raises:
            Internal: it fails.
        """
        with ExitStack() as stack:
            scratch = stack.enter_context(self._store.scratch())
            for name, text in texts.items():
                os.makedirs(os.path.dirname(f"{scratch}/{name}"), exist_ok=True)
                with open(f"{scratch}/{name}", "w", encoding="utf-8") as file:
                    file.write(text)
            tree = stack.enter_context(self._storage.volumes.readable(place, still))
            own, beside = _MEMBERS[place.kind]
            inside = [name.removeprefix(f"{own}/") for name in texts if name.startswith(f"{own}/")]
            pool = self._storage.trees.path(place).removesuffix(place.path)
            members = [renamed(tree, own), renamed(place.snapshots, beside)]
            members += ["--anchored", "--no-wildcards", *(f"--exclude={tree}/{name}" for name in inside)]
            members += [f"--directory={scratch}", *texts, f"--directory={os.path.realpath(pool)}"]
            members += [place.at(name).path for name in snapshots]
            archive.write_tar([*members, tree], compression, write, on_progress=on_progress)
