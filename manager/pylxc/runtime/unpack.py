"""The child that unpacks an image or a backup: the usual programs, in a cell where a hostile archive harms nobody.

tar and unsquashfs write into the cell's one directory. What an archive says of other places (absolute names, `..`,
links) resolves inside the cell, where there is nothing; device nodes fail for want of the right and are left out. The
child itself stays outside, counts bytes and members, and ends the cell when there are too many.
"""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import struct
import tarfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from pylxc.errors import BadRequest, Internal
from pylxc.kernel import caps
from pylxc.runtime import protocol
from pylxc.runtime.sandbox import TARGET, Cell, image_path
from pylxc.runtime.sendstream import Receiver
from pylxc.runtime.tarwords import renamed

_ENVIRONMENT = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"}
_QUEUE = "16"
"""MiB that unsquashfs holds before it waits for the disk. With its own 256 it never uses a page of memory twice."""
_CHECK_MILLISECONDS = 50
_MAX_LINES = 40
_TAR = (
    "tar",
    "--extract",
    "--verbose",
    "--quoting-style=escape",
    "--no-unquote",
    "--numeric-owner",
    "--same-owner",
    "--same-permissions",
    "--xattrs",
    "--xattrs-include=*",
    "--acls",
    "--warning=no-timestamp",
    "--warning=no-unknown-keyword",
    "--file=-",
)

# What the programs say about things that are left out on purpose: device nodes, attributes that only the host's root
# can set, ACLs of users that are known by name only.
_HARMLESS = re.compile(
    rb"tar: .*: Cannot mknod: Operation not permitted"
    rb"|tar: Exiting with failure status due to previous errors"
    rb"|tar: .*: Warning: .*"
    rb"|tar: Removing leading .* from (member names|hard link targets)"
    rb"|create_inode: failed to create (block|character) device .*, because Operation not permitted"
    rb"|write_xattr: failed to write xattr trusted\..*"
    rb"|\s*"
)
_FULL = (b"No space left on device", b"Disk quota exceeded")
_PARTLY = 2
"""How tar, unsquashfs and gzip end when something was left out or odd; what they said decides."""
_FAILED, _TOO_LARGE = 3, 4


def main(payload: dict[str, Any], descriptors: list[int]) -> None:
    """Unpack an archive, or read one file of it. Answers {"content": text} once all is well.

    Payload:
        uids, gids: maps of the cell, lists of (inside, outside, count).
        target_uids, target_gids: maps of the target's owners, in place of these.
        parts: per archive {"directory": below the target, "only": the directory of a tar archive that is wanted, "" for
            all of it, "squashfs": bool, "decompress": argv, maybe empty}.
        what: how errors call it: "image", "backup".
        member: name of the one file to be returned as text; "" to unpack everything.
        max_content: bytes that this file may have.
        streams: what subvolumes to make of an archive's members in place of unpacking it, in their order: {"member":
            name, "directory": below the target, "parent": the directory of one made before, or "", "uids" and "gids":
            as `Receiver.receive` takes them}.
        max_bytes, max_members, timeout: bounds; the last in seconds.
        space: bytes that there is room for.

    Descriptors: answer socket, the archives in the order of `parts`, and, to unpack, the target directory.

    Raises:
        BadRequest: the archive is damaged, hostile, too large, or without the wanted file.
        Internal: no space left, or the pool's file system cannot map owners.
    """
    caps.set_parent_death_signal(signal.SIGKILL)
    files = descriptors[1 : 1 + len(payload["parts"])]
    target = descriptors[1 + len(files)] if len(descriptors) > 1 + len(files) else None
    content = _Job(payload, files).run(target)
    protocol.send(protocol.adopt(descriptors[0]), {"content": content})


class _Job:
    def __init__(self, payload: dict[str, Any], files: Sequence[int]) -> None:
        self._payload = payload
        self._files = files
        self._member: str = payload["member"]
        self._what: str = payload["what"]
        self._room: int = min(payload["max_bytes"], payload["space"])
        self._members = 0
        self._content = bytearray()
        self._complaints: list[bytes] = []
        self._unfinished_line = b""

    def run(self, target: int | None) -> str:
        stdout_read, stdout = os.pipe()
        stderr_read, stderr = os.pipe()
        try:
            cell = Cell(
                self._payload["uids"],
                self._payload["gids"],
                files=self._files,
                target_fd=target,
                target_map=(self._payload["target_uids"], self._payload["target_gids"]),
                keep=[stdout, stderr, *self._files],
                run=lambda: self._inside(stdout, stderr),
            )
        except OSError as error:
            raise Internal(f"Failed preparing to unpack: {error}") from error
        os.close(stdout)
        os.close(stderr)
        try:
            self._watch(cell, {stdout_read: self._take_output, stderr_read: self._take_complaints})
        except BaseException:
            cell.kill()
            raise
        status = cell.wait()
        if status and (status != _PARTLY or self._complaints):
            raise self._failure(status)
        if self._member and not self._content:
            raise BadRequest(f"Invalid {self._what}: it has no {self._member}")
        return self._content.decode(errors="replace")

    def _watch(self, cell: Cell, takers: dict[int, Callable[[bytes], None]]) -> None:
        deadline = time.monotonic() + self._payload["timeout"]
        poll = select.poll()
        for fd in takers:
            poll.register(fd, select.POLLIN)
        still_open = set(takers)
        while still_open:
            for fd, _ in poll.poll(_CHECK_MILLISECONDS):
                if chunk := os.read(fd, 1 << 16):
                    takers[fd](chunk)
                else:
                    poll.unregister(fd)
                    still_open.discard(fd)
            if cell.written() > self._room:
                raise self._too_large()
            if self._members > self._payload["max_members"]:
                raise BadRequest(f"The {self._what} has too many files")
            if time.monotonic() > deadline:
                raise BadRequest(f"Unpacking the {self._what} takes too long")

    def _take_output(self, chunk: bytes) -> None:
        if not self._member:
            self._members += chunk.count(b"\n")  # the programs print a line per member
            return
        self._content += chunk
        if len(self._content) > self._payload["max_content"]:
            raise BadRequest(f"Invalid {self._what}: its {self._member} is too large")

    def _take_complaints(self, chunk: bytes) -> None:
        *lines, rest = (self._unfinished_line + chunk).split(b"\n")
        self._unfinished_line = rest[-4096:]
        for line in lines:
            is_full = any(text in line for text in _FULL)
            if is_full or (len(self._complaints) < _MAX_LINES and not _HARMLESS.fullmatch(line)):
                self._complaints = [line] if is_full else [*self._complaints, line]

    def _failure(self, status: int) -> BadRequest | Internal:
        if any(text in line for line in self._complaints for text in _FULL):
            return Internal(f"Failed unpacking the {self._what}: no space left on the disk")
        if status in (_TOO_LARGE, -signal.SIGXFSZ):
            return self._too_large()
        text = self._complaints[0].decode(errors="replace")[:200] if self._complaints else f"status {status}"
        readable = "".join(character if character.isprintable() else "?" for character in text)
        return BadRequest(f"Failed unpacking the {self._what}: {readable}", hint=f"it is damaged, or no {self._what}")

    def _too_large(self) -> BadRequest | Internal:
        if self._room < self._payload["max_bytes"]:
            return Internal(f"Failed unpacking the {self._what}: no space left on the disk")
        return BadRequest(f"The {self._what} is too large when it is unpacked")

    # All below runs in the cell.

    def _inside(self, stdout: int, stderr: int) -> int:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # Python ignores both, and so would the programs
        if not self._member:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self._room, self._room))
            for part in self._payload["parts"]:
                if part["directory"]:
                    os.makedirs(part["directory"], 0o755, exist_ok=True)
        # The parts of an image do not wait for each other.
        ends = [self._begin(index, part, stdout, stderr) for index, part in enumerate(self._payload["parts"])]
        return max(end() for end in ends)

    def _begin(self, index: int, part: dict[str, Any], stdout: int, stderr: int) -> Callable[[], int]:
        """Start unpacking a part; what is returned waits for its end, and returns how bad that is."""
        if part["directory"] and not self._member:
            os.chdir(f"{TARGET}/{part['directory']}")
        source, decompressor = self._files[index], 0
        if part["decompress"]:
            source, pipe_write = os.pipe()
            decompressor = _start(part["decompress"], self._files[index], pipe_write, stderr)
            os.close(pipe_write)
        if self._payload["streams"]:
            return lambda: self._receive(source, stderr)
        if self._member and not part["squashfs"]:
            return lambda: self._send_member(source, stdout)
        unpacker = _start(self._program(index, part), source, stdout, stderr)
        if decompressor:
            os.close(source)  # so that the decompressor notices when the other ends early

        def end() -> int:
            status = _result(decompressor) if decompressor else 0
            status = 0 if status == -signal.SIGPIPE else status
            return max(_severity(status), _severity(_result(unpacker)))

        return end

    def _program(self, index: int, part: dict[str, Any]) -> Sequence[str]:
        if not part["squashfs"]:
            return (*_TAR, *_only(part["only"]))
        if self._member:
            return ("unsquashfs", "-no-progress", "-cat", image_path(index), self._member)
        processors = str(len(os.sched_getaffinity(0)))
        return ("unsquashfs", "-no-progress", "-quiet", "-info", "-force", "-processors", processors,
                "-data-queue", _QUEUE, "-frag-queue", _QUEUE, "-dest", ".", image_path(index))  # fmt: skip

    def _send_member(self, source: int, stdout: int) -> int:
        """Write the wanted member of a tar stream to `stdout`; what it costs to read past is bounded outside."""
        try:
            with open(source, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    if member.isreg() and member.name.removeprefix("/").removeprefix("./") == self._member:
                        content = archive.extractfile(member)
                        while content and (chunk := content.read(1 << 16)):
                            os.write(stdout, chunk)
                        return 0
        except (tarfile.TarError, EOFError, ValueError, OverflowError):
            return _FAILED
        return 0

    def _receive(self, source: int, stderr: int) -> int:
        """Make subvolumes of the streams in a tar stream."""
        waiting = list(self._payload["streams"])
        receiver = Receiver(self._payload["max_members"])
        try:
            with open(source, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    content = archive.extractfile(member)
                    if content is None or not waiting or member.name != waiting[0]["member"]:
                        continue
                    one = waiting.pop(0)
                    parent = f"{TARGET}/{one['parent']}" if one["parent"] else ""
                    receiver.receive(content.read, f"{TARGET}/{one['directory']}", parent, one["uids"], one["gids"])
            if waiting:
                raise ValueError(f"it has no {waiting[0]['member']}, or not in its place")
        except (OSError, ValueError, OverflowError, struct.error, tarfile.TarError, EOFError) as error:
            os.write(stderr, f"{error}\n".encode(errors="replace"))
            return _FAILED
        return 0


def _only(member: str) -> tuple[str, ...]:
    """Return tar's words for a directory of the archive that becomes the target."""
    return (renamed(member, "."), "--", member) if member else ()


def _severity(status: int) -> int:
    if status in (0, _PARTLY):
        return status
    return _TOO_LARGE if status == -signal.SIGXFSZ else _FAILED


def _result(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _start(argv: Sequence[str], stdin: int, stdout: int, stderr: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        for number, fd in enumerate((stdin, stdout, stderr)):
            os.dup2(fd, number)
        os.execvpe(argv[0], [*argv], _ENVIRONMENT)  # noqa: S606 - a fixed program in the cell, no shell wanted
    finally:
        os._exit(127)
