"""Image files: their metadata.yaml, and unpacking them into a volume."""

from __future__ import annotations

import contextlib
import os
import stat

from pylxc.errors import BadRequest, NotFound
from pylxc.kernel import command
from pylxc.runtime.handle import Runtime
from pylxc.services.images.store import Staging, Store
from pylxc.services.metadata_yaml import MAX_BYTES
from pylxc.services.unarchive import Extractor, Part, detect


class Unpacker:
    """Reads and unpacks image files through the runtime; thread-safe."""

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self._store = store
        self._extractor = Extractor(runtime, "image")

    def suffix(self, path: str) -> str:
        """Return the file name suffix for the archive at `path`: ".tar.xz"."""
        return detect(path).suffix

    def read_metadata(self, staging: Staging) -> bytes:
        """Return the metadata.yaml of an image that has been staged.

        Raises:
            BadRequest: the file is no archive, is damaged, or has no metadata.yaml.
        """
        if staging.is_split:
            detect(staging.rootfs_path)  # refuse now what could not be unpacked later
        return self._extractor.read(staging.metadata_path, "metadata.yaml", MAX_BYTES)

    def unpack(self, fingerprint: str, target: str) -> None:
        """Unpack an image of the store into `target`, which is empty before, and again after a failure.

        Raises:
            NotFound: the image is gone.
            BadRequest: it is damaged, hostile or too large.
            Internal: no space left.
        """
        if not self._store.has(fingerprint):
            raise NotFound("Image not found")
        parts = [Part(path=self._store.metadata_path(fingerprint))]
        if self._store.is_split(fingerprint):
            parts.append(Part(path=self._store.rootfs_path(fingerprint), directory="rootfs"))
        try:
            self._extractor.unpack(parts, target)
            check_layout(target, "image")
        except BaseException:
            _empty(target)
            raise


def check_layout(target: str, what: str) -> None:
    """Check that what was unpacked is an instance's volume; `what` it came from. Its backup.yaml is removed.

    Raises:
        BadRequest: something is missing, or of the wrong kind.
    """
    # An archive may hold anything under these names; what comes later takes them for what they should be.
    for name, is_kind, needed in (
        ("metadata.yaml", stat.S_ISREG, True),
        ("rootfs", stat.S_ISDIR, True),
        ("templates", stat.S_ISDIR, False),
        ("backup.yaml", stat.S_ISREG, False),
    ):
        try:
            mode = os.lstat(f"{target}/{name}").st_mode
        except FileNotFoundError:
            if needed:
                raise BadRequest(f"Invalid {what}: it has no {name}") from None
            continue
        if not is_kind(mode):
            raise BadRequest(f"Invalid {what}: its {name} is of the wrong kind")
    # It would be believed when the database is lost; only this server writes one.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{target}/backup.yaml")


def _empty(target: str) -> None:
    names = [f"{target}/{name}" for name in os.listdir(target)]
    if names:  # rm copes with trees deeper than Python's recursion
        command.run(["rm", "-rf", "--one-file-system", "--", *names], timeout=600)
