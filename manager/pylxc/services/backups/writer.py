"""What a backup consists of: its index, and trees as tar has them or streams of the pool's driver.

See: LXD doc backup, the layout of LXD 5.0.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from pylxc.runtime.tarwords import renamed
from pylxc.services import archive
from pylxc.services.backups import document
from pylxc.services.backups.store import BackupStore
from pylxc.services.backups.streams import HEADER, StreamFiles, member, members
from pylxc.services.storage.places import Place
from pylxc.services.storage.service import StoragePools

INDEX = "backup/index.yaml"
Write = Callable[[bytes], object]
OnProgress = Callable[[int], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions:
    """How a backup is made.

    Attributes:
        alone: without snapshots.
        compression: see `validate.compression`.
        optimized: in the form of the pool's driver.
    """

    alone: bool
    compression: str
    optimized: bool


class BackupWriter:
    """Writes backups of volumes; thread-safe.

    Args:
        store: where there is room for what goes into a backup.
        storage: what has the volumes.
    """

    def __init__(self, store: BackupStore, storage: StoragePools) -> None:
        self._store = store
        self._storage = storage

    def write(
        self,
        place: Place,
        index: dict[str, Any],
        own: Mapping[str, str],
        *,
        still: Callable[[], AbstractContextManager[None]] | None,
        options: BackupOptions,
        write: Write,
        on_progress: OnProgress,
    ) -> None:
        """Write a backup; see `archive.write_tar`.

        Args:
            place: the volume.
            index: what its index says; the snapshots that it names go with it.
            own: files in the volume's directory that are to have other contents in the backup.
            still: see `Volumes.readable`.
            options: how it is written.
            write: takes the bytes.
            on_progress: is told how many.

        Raises:
            NotSupported: it is to have the form of the pool's driver, and that has none.
            Internal: it fails.
        """
        with ExitStack() as stack:
            scratch = stack.enter_context(self._store.scratch())
            if options.optimized:
                words = self._streams(place, index, own, scratch)
            else:
                texts = {INDEX: document.dump(index)} | {f"{member(place)}/{name}": text for name, text in own.items()}
                _put(scratch, texts)
                tree = stack.enter_context(self._storage.volumes.readable(place, still))
                without = ["--anchored", "--no-wildcards", *(f"--exclude={tree}/{name}" for name in own)]
                words = [*without, f"--directory={scratch}", *texts, *self._trees(place, index["snapshots"], tree)]
            archive.write_tar(words, options.compression, write, on_progress=on_progress)

    def _trees(self, place: Place, snapshots: Sequence[str], tree: str) -> list[str]:
        """Return tar's words for trees of a pool, the volume's own being `tree`."""
        own, beside = members(place)
        pool = os.path.realpath(self._storage.trees.path(place).removesuffix(place.path))
        names = [place.at(name).path for name in snapshots]
        return [renamed(tree, own), renamed(place.snapshots, beside), f"--directory={pool}", *names, tree]

    def _streams(self, place: Place, index: dict[str, Any], own: Mapping[str, str], scratch: str) -> list[str]:
        """Write streams, whose lengths tar has to know beforehand, and return tar's words for them."""
        files = StreamFiles(scratch, place, index["snapshots"])
        self._storage.trees.send(place, index["snapshots"], lambda directory: _put(directory, own), files.sink)
        described = {**index, "optimized": True, "optimized_header": True}
        _put(scratch, {INDEX: document.dump(described), HEADER: files.header()})
        return [f"--directory={scratch}", INDEX, HEADER, *files.names]


def _put(directory: str, texts: Mapping[str, str]) -> None:
    """Write files in place of those that are there."""
    for name, text in texts.items():
        path = f"{directory}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with suppress(FileNotFoundError):
            os.unlink(path)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
