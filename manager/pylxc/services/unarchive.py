"""Reading and unpacking archives: what they are, single files of them, and whole ones into a directory.

Nothing of an archive is parsed here: that is done by `pylxc.runtime.unpack`, in a process that can do no harm.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pylxc.errors import BadRequest, Internal
from pylxc.kernel import command
from pylxc.kernel.idmap import Range
from pylxc.runtime.handle import Runtime
from pylxc.services.instances.idmap import host_map

MAX_UNPACKED = 1 << 40
"""Bytes of an unpacked archive, at most; the free space is the other bound."""
MAX_MEMBERS = 5_000_000
TIMEOUT_SECONDS = 1800
_END_BYTES = 1024
"""The zeros that end a tar, at least."""
_RESERVE = 64 << 20
"""Bytes of the free space that an archive may not take."""


@dataclass(frozen=True, slots=True)
class Format:
    """An archive format. `decompress` is the program that turns it into a plain tar, empty for none."""

    suffix: str
    magic: bytes
    decompress: tuple[str, ...] = ()
    offset: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether it is a tar that is not compressed."""
        return self.offset > 0

    @property
    def command(self) -> list[str]:
        """What decompresses it fastest of what is installed."""
        if not self.decompress:
            return []
        program, *options = self.decompress
        faster = _FASTER.get(program, program)
        return [faster if shutil.which(faster) else program, *options]


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

_FASTER = {"gzip": "pigz", "bzip2": "lbzip2"}
"""Programs that read the same with less time, or on several cores."""


def detect(path: str) -> Format:
    """Return the format of the archive at `path`, by its first bytes.

    Raises:
        BadRequest: it is none that images and backups come in.
    """
    with open(path, "rb") as file:
        head = file.read(512)
    for found in _FORMATS:
        if head[found.offset :].startswith(found.magic):
            return found
    if head.startswith(b"QFI\xfb"):
        raise BadRequest("This is a disk image of a virtual machine; only container images can be used")
    raise BadRequest(
        "Invalid file: unknown archive format", hint="tar (plain, gz, bz2, xz, lzma, zstd) and squashfs are known"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """An archive, or what is wanted of it.

    Attributes:
        path: the file.
        directory: where it goes, below the target.
        member: only this directory of it, which then is `directory` itself; tar archives only.
    """

    path: str
    directory: str = ""
    member: str = ""


@dataclass(frozen=True, slots=True)
class Shift:
    """How ids were shifted on the disk that an archive comes from, as (id in the instance, id on the disk, count)."""

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A member of an archive that makes a btrfs subvolume.

    Attributes:
        member: its name.
        directory: where the subvolume goes, below the target.
        parent: the directory of the one, made before, that it differs from; "" for none.
        shift: how its ids are shifted.
    """

    member: str
    directory: str
    parent: str
    shift: Shift | None


class Extractor:
    """Reads and unpacks archives through the runtime; thread-safe.

    Args:
        what: how errors call the archive: "image".
    """

    def __init__(self, runtime: Runtime, what: str) -> None:
        self._runtime = runtime
        self._what = what

    def read(self, path: str, name: str, most: int) -> bytes:
        """Return one file of an archive, of at most `most` bytes.

        Raises:
            BadRequest: it is no archive, is damaged, or has no such file, or a larger one.
        """
        bounds = {"member": name, "max_content": most, "space": MAX_UNPACKED}
        content: str = self._run([Part(path=path)], None, bounds)["content"]
        return content.encode()

    def unpack(self, parts: Sequence[Part], target: str, shift: Shift | None = None) -> None:
        """Unpack archives, all at once, into the directory `target`; owners become what they were unshifted.

        Raises:
            BadRequest: one is damaged, hostile or too large; `target` may hold some of it.
            Internal: no space left.
        """
        free = shutil.disk_usage(target).free
        self._run(parts, target, {"member": "", "space": max(0, free - _RESERVE)}, shift)

    def receive(self, path: str, streams: Sequence[Stream], target: str) -> None:
        """Make subvolumes below the directory `target` of streams in an archive, which has them in this order.

        What is made is as hostile as the archive, and may be something else.

        Raises:
            BadRequest: the archive is damaged, hostile or too large; `target` may hold some of it.
            Internal: no space left.
        """
        plan = [
            {
                "member": one.member,
                "directory": one.directory,
                "parent": one.parent,
                "uids": one.shift.uids if one.shift else (),
                "gids": one.shift.gids if one.shift else (),
            }
            for one in streams
        ]
        free = shutil.disk_usage(target).free
        self._run([Part(path=path)], target, {"member": "", "space": max(0, free - _RESERVE), "streams": plan})

    def _run(
        self, parts: Sequence[Part], target: str | None, bounds: dict[str, Any], shift: Shift | None = None
    ) -> dict[str, Any]:
        plan: list[dict[str, Any]] = []
        fds: list[int] = []
        try:
            for part in parts:
                form = detect(part.path)
                for program in form.command[:1] or (("unsquashfs",) if form is SQUASHFS else ("tar",)):
                    if shutil.which(program) is None:
                        raise command.missing(program)
                plan.append(
                    {
                        "directory": part.directory,
                        "only": part.member,
                        "squashfs": form is SQUASHFS,
                        "decompress": form.command,
                    }
                )
                fds.append(os.open(part.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
                if form.is_plain:
                    self._check_end(fds[-1])
            if target is not None:
                fds.append(os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW))
            idmap = host_map()
            uids, gids = ([(r.inside, r.outside, r.length) for r in ranges] for ranges in (idmap.uids, idmap.gids))
            maps = {
                "uids": _shifted(uids, shift.uids) if shift else uids,
                "gids": _shifted(gids, shift.gids) if shift else gids,
                "target_uids": uids,
                "target_gids": gids,
            }
            bounds = {"streams": [], "max_content": 0, **bounds}
            bounds |= {"max_bytes": MAX_UNPACKED, "max_members": MAX_MEMBERS, "timeout": TIMEOUT_SECONDS}
            child = self._runtime.spawn("unpack", {"parts": plan, "what": self._what, **maps, **bounds}, fds)
        finally:
            for fd in fds:
                os.close(fd)
        try:
            result: dict[str, Any] | None = child.wait(TIMEOUT_SECONDS + 60)["result"]
        finally:
            child.close()
        if result is None:
            raise Internal(f"Unpacking the {self._what} was interrupted")
        return result

    def _check_end(self, fd: int) -> None:
        """Check that a plain tar has its end: one that was cut between two members is whole to tar itself."""
        if any(os.pread(fd, _END_BYTES, max(0, os.fstat(fd).st_size - _END_BYTES))):
            raise BadRequest(f"Invalid {self._what}: it is cut short")


def _shifted(host: Sequence[Range], shift: Sequence[Range]) -> list[Range]:
    """Return the map of a cell in which the ids of an archive are what they were before they were shifted.

    Args:
        host: (id inside, id of the host, count), of a target as it should be.
        shift: (id in the instance, id in the archive, count).

    Raises:
        BadRequest: the ids are not what anybody shifts to.
    """
    (first, outside, count), *_ = host
    # What is the host's root's own there is nobody's in the instance: it gets the last id, which none has.
    found = [(0, outside + count - 1, 1)]
    for inside, archived, length in shift:
        most = min(length, first + count - 1 - inside)
        if inside < first or archived < 1 or most < 1:
            raise BadRequest("Invalid backup: its map of ids makes no sense")
        found.append((archived, outside + inside - first, most))
    return found
