"""Reading image files: what they are, what their metadata.yaml says, and unpacking them into a directory.

Nothing of an image is parsed here: that is done by `pylxc.runtime.unpack`, in a process that can do no harm.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pylxc.errors import BadRequest, Internal, NotFound
from pylxc.kernel import command
from pylxc.runtime.handle import Runtime
from pylxc.services.images.store import Staging, Store
from pylxc.services.instances.idmap import host_map

MAX_UNPACKED = 1 << 40
"""Bytes of an unpacked image, at most; the pool's free space is the other bound."""
MAX_MEMBERS = 5_000_000
TIMEOUT_SECONDS = 1800
_RESERVE = 64 << 20
"""Bytes of the pool's free space that an image may not take."""


@dataclass(frozen=True, slots=True)
class Format:
    """An archive format. `decompress` is the program that turns it into a plain tar, empty for none."""

    suffix: str
    magic: bytes
    decompress: tuple[str, ...] = ()
    offset: int = 0


SQUASHFS = Format(".squashfs", b"hsqs")
_FORMATS = (
    SQUASHFS,
    Format(".tar.gz", b"\x1f\x8b", ("gzip", "-dc")),
    Format(".tar.bz2", b"BZh", ("bzip2", "-dc")),
    Format(".tar.xz", b"\xfd7zXZ\x00", ("xz", "-dc", "-T0")),
    Format(".tar.lzma", b"\x5d\x00\x00", ("xz", "-dc", "--format=lzma")),
    Format(".tar.zst", b"\x28\xb5\x2f\xfd", ("zstd", "-dcq")),
    Format(".tar", b"ustar", offset=257),
)


def detect(path: str) -> Format:
    """Return the format of the archive at `path`, by its first bytes.

    Raises:
        BadRequest: it is none that images come in.
    """
    with open(path, "rb") as file:
        head = file.read(512)
    for found in _FORMATS:
        if head[found.offset :].startswith(found.magic):
            return found
    if head.startswith(b"QFI\xfb"):
        raise BadRequest("This is a disk image of a virtual machine; only container images can be used")
    raise BadRequest(
        "Invalid image: unknown archive format", hint="tar (plain, gz, bz2, xz, lzma, zstd) and squashfs are known"
    )


class Unpacker:
    """Reads and unpacks image files through the runtime; thread-safe."""

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self._store = store
        self._runtime = runtime

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
        bounds = {"member": "metadata.yaml", "space": MAX_UNPACKED}
        content: str = self._run([("", staging.metadata_path)], None, bounds)["content"]
        return content.encode()

    def unpack(self, fingerprint: str, target: str) -> None:
        """Unpack an image of the store into `target`, which is empty before, and again after a failure.

        Raises:
            NotFound: the image is gone.
            BadRequest: it is damaged, hostile or too large.
            Internal: no space left.
        """
        if not self._store.has(fingerprint):
            raise NotFound("Image not found")
        files = [("", self._store.metadata_path(fingerprint))]
        if self._store.is_split(fingerprint):
            files.append(("rootfs", self._store.rootfs_path(fingerprint)))
        free = shutil.disk_usage(target).free
        bounds = {"member": "", "space": max(0, free - _RESERVE)}
        try:
            self._run(files, target, bounds)
            _check_layout(target)
        except BaseException:
            _empty(target)
            raise

    def _run(self, files: Sequence[tuple[str, str]], target: str | None, bounds: dict[str, Any]) -> dict[str, Any]:
        parts: list[dict[str, Any]] = []
        fds: list[int] = []
        try:
            for directory, path in files:
                form = detect(path)
                for program in form.decompress[:1] or (("unsquashfs",) if form is SQUASHFS else ("tar",)):
                    if shutil.which(program) is None:
                        raise command.missing(program)
                parts.append(
                    {"directory": directory, "squashfs": form is SQUASHFS, "decompress": list(form.decompress)}
                )
                fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
            if target is not None:
                fds.append(os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW))
            idmap = host_map()
            maps = {
                "uids": [(r.inside, r.outside, r.length) for r in idmap.uids],
                "gids": [(r.inside, r.outside, r.length) for r in idmap.gids],
            }
            bounds |= {"max_bytes": MAX_UNPACKED, "max_members": MAX_MEMBERS, "timeout": TIMEOUT_SECONDS}
            child = self._runtime.spawn("unpack", {"parts": parts, **maps, **bounds}, fds)
        finally:
            for fd in fds:
                os.close(fd)
        try:
            result: dict[str, Any] | None = child.wait(TIMEOUT_SECONDS + 60)["result"]
        finally:
            child.close()
        if result is None:
            raise Internal("Unpacking the image was interrupted")
        return result


def _check_layout(target: str) -> None:
    # An archive may hold anything under these names; what comes later takes them for what they should be.
    for name, is_kind, needed in (
        ("metadata.yaml", stat.S_ISREG, True),
        ("rootfs", stat.S_ISDIR, True),
        ("templates", stat.S_ISDIR, False),
    ):
        try:
            mode = os.lstat(f"{target}/{name}").st_mode
        except FileNotFoundError:
            if needed:
                raise BadRequest(f"Invalid image: it has no {name}") from None
            continue
        if not is_kind(mode):
            raise BadRequest(f"Invalid image: its {name} is of the wrong kind")


def _empty(target: str) -> None:
    names = [f"{target}/{name}" for name in os.listdir(target)]
    if names:  # rm copes with trees deeper than Python's recursion
        command.run(["rm", "-rf", "--one-file-system", "--", *names], timeout=600)
