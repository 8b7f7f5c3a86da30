"""Files of a container, one request per process: read, write, make, delete, and whole trees as tar streams.

The process is in the container (see `runtime.cell`) before it looks at a path. With the daemon it talks over its
result socket: it tells what it has found or made ready, is told where the bytes go or that they are all there, and
tells the end. A guest can make a file system hang (FUSE): every look at it is under an alarm that ends the process.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import select
import signal
import socket
import stat
from collections.abc import Callable, Mapping
from typing import Any

from pylxc import tarstream
from pylxc.errors import BadRequest, Conflict, Forbidden, NotFound, PylxcError
from pylxc.kernel import caps
from pylxc.runtime import cell, protocol
from pylxc.runtime.spool import Spool

STALLED_SECONDS = 30
"""How long one system call on a file system of the container may take."""

_CHUNK = 1 << 20
_SMALL = 1 << 16
_MAX_UNSIZED = 64 << 20
_MAX_MEMORY = 1 << 30
"""Bytes of address space: a guest decides how many names a directory has, and this process is not in its limits."""
_TEXTS = {errno.ENOSPC: "No space left in the instance", errno.EROFS: "The file system is read-only"}


def main(payload: dict[str, Any], fds: list[int]) -> None:
    """Serve one request; the spawner's child of kind "files".

    Args:
        payload: where (see `cell.enter`), `op` (get, put, mkdir, symlink, delete, put-tree, get-tree), `path`, and for
            what is made `uid`, `gid`, `mode` (null for the default), `append`, `target`; `whole` when all bytes for
            put are in the pipe already.
        fds: the result socket; for put and put-tree the descriptor that the bytes come from.

    Raises:
        PylxcError: told to the daemon by the spawner.
    """
    caps.set_name("pylxc-files")
    serve(payload, fds, _OPERATIONS)


def serve(payload: dict[str, Any], fds: list[int], operations: Mapping[str, Operation]) -> None:
    """Enter the container and do what `payload["op"]` names of `operations`; as `main` says."""
    daemon = protocol.adopt(fds[0])
    path: str = payload["path"]
    signal.alarm(STALLED_SECONDS)
    proc_fd = cell.enter(payload)
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    try:
        answer = operations[payload["op"]](Request(payload, daemon, proc_fd, fds[1] if len(fds) > 1 else -1))
    except OSError as error:
        raise translate(error, path) from None
    except ValueError as error:
        raise BadRequest(f"Invalid archive: {error}") from None
    except MemoryError:
        raise BadRequest(f"{path!r}: there is too much in the directory") from None
    except _AbandonedError:
        return
    protocol.send(daemon, answer)


Operation = Callable[["Request"], dict[str, Any]]
"""Does a request and returns the last answer to it."""


class _AbandonedError(Exception):
    """The daemon wants no more of this request."""


class Request:
    """What `main` was asked for."""

    def __init__(self, payload: dict[str, Any], daemon: socket.socket, proc_fd: int, source_fd: int) -> None:
        self.path: str = os.path.normpath("/" + payload["path"].lstrip("/"))
        self.payload = payload
        self.daemon = daemon
        self.proc_fd = proc_fd
        self.source_fd = source_fd

    def owner(self) -> tuple[int, int]:
        """The owner of something new, as ids inside."""
        return self.payload.get("uid") or 0, self.payload.get("gid") or 0

    def mode(self, default: int) -> int:
        """The permission bits of something new."""
        mode = self.payload.get("mode")
        return default if mode is None else int(mode) & 0o7777

    def say_ready(self) -> None:
        """Tell the daemon that the bytes may come."""
        protocol.send(self.daemon, {"ready": True})

    def ask(self, message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        """Tell the daemon something and return what it answers, with its descriptors.

        Raises:
            _AbandonedError: the daemon has lost interest.
        """
        signal.alarm(0)
        protocol.send(self.daemon, message)
        received = protocol.receive(self.daemon)
        signal.alarm(STALLED_SECONDS)
        if received is None:
            raise _AbandonedError
        return received


def _get(request: Request) -> dict[str, Any]:
    status = os.lstat(request.path)
    head = {
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mode": stat.S_IMODE(status.st_mode),
        "modified": status.st_mtime_ns,
    }
    if stat.S_ISDIR(status.st_mode):
        _send_bytes(request, head | {"type": "directory"}, json.dumps(sorted(os.listdir(request.path))).encode())
    elif stat.S_ISLNK(status.st_mode):
        target = os.path.join(os.path.dirname(request.path), os.readlink(request.path))
        _send_bytes(request, head | {"type": "symlink"}, os.fsencode(os.path.normpath(target)))
    elif stat.S_ISREG(status.st_mode):
        _send_file(request, head | {"type": "file"})
    else:
        raise BadRequest(f"{request.path!r} is no file, directory or symbolic link")
    return {"done": True}


def _send_bytes(request: Request, head: dict[str, Any], data: bytes) -> None:
    _, (sink,) = request.ask(head | {"size": len(data)})
    write_all(sink, data)


def _send_file(request: Request, head: dict[str, Any]) -> None:
    fd = os.open(request.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise BadRequest(f"{request.path!r} is no file, directory or symbolic link")
    if status.st_size == 0:
        # Files of /proc and /sys tell no size, and give a page at a time.
        content = bytearray()
        while piece := os.read(fd, _CHUNK):
            content += piece
            if len(content) > _MAX_UNSIZED:
                raise BadRequest(f"{request.path!r} does not tell its size and has no end")
        _send_bytes(request, head, bytes(content))
        return
    _, (sink,) = request.ask(head | {"size": status.st_size})
    if send_file(sink, fd, status.st_size) < status.st_size:
        raise Conflict(f"{request.path!r} was cut short while it was read")


def send_file(sink: int, fd: int, size: int) -> int:
    """Send `size` bytes of a file, fewer when it ends before; return how many.

    Waiting for a slow receiver is not under the alarm.
    """
    sent = 0
    while sent < size:
        signal.alarm(STALLED_SECONDS)
        try:
            count = os.sendfile(sink, fd, None, min(_CHUNK, size - sent))
        except BlockingIOError:
            _wait_writable(sink)
            continue
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            data = os.read(fd, _SMALL)  # a file system without splice
            write_all(sink, data)
            count = len(data)
        if count == 0:
            break
        sent += count
    return sent


def write_all(sink: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data` to a descriptor that may be non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(sink, view) :]
        except BlockingIOError:
            _wait_writable(sink)


def _wait_writable(fd: int) -> None:
    _wait(fd, select.POLLOUT)


def _wait_readable(fd: int) -> None:
    _wait(fd, select.POLLIN)


def _wait(fd: int, event: int) -> None:
    """Wait for the client, who may take any time."""
    signal.alarm(0)
    poll = select.poll()
    poll.register(fd, event)
    poll.poll()
    signal.alarm(STALLED_SECONDS)


def _put(request: Request) -> dict[str, Any]:
    is_whole = request.payload.get("whole", False)
    with Spool(request.path, request.proc_fd) as spool:
        if not is_whole:
            request.say_ready()
        more = True
        while more:
            _wait_readable(request.source_fd)
            more = spool.take(request.source_fd)
        if not is_whole:
            # What comes next is the daemon's word that this was all, or where the rest is to be taken from.
            message, fds = request.ask({"received": spool.size})
            if fds:
                _take_rest(spool, fds[0], message["rest"])
                request.ask({"received": spool.size})
        if request.payload.get("append") and spool.exists:
            spool.append()
        else:
            spool.keep_replaced()
            spool.commit(request.owner(), request.mode(0o644))
        return {"created": not spool.exists}


def _take_rest(spool: Spool, connection: int, size: int) -> None:
    """Take `size` bytes from the client's connection."""
    buffer = memoryview(bytearray(min(_CHUNK, size)))
    while size:
        _wait_readable(connection)
        try:
            count = os.readv(connection, [buffer[:size]])
        except BlockingIOError:
            continue
        if not count:
            raise _AbandonedError
        spool.write(buffer[:count])
        size -= count


def _mkdir(request: Request) -> dict[str, Any]:
    return {"created": make_directory(request.path, request.owner(), request.mode(0o750))}


def make_directory(path: str | bytes, owner: tuple[int, int], mode: int) -> bool:
    """Make a directory; return False when it is there already, which is fine."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if os.path.isdir(path):
            return False
        raise
    os.chown(path, *owner, follow_symlinks=False)
    os.chmod(path, mode)
    return True


def _symlink(request: Request) -> dict[str, Any]:
    return {"created": make_symlink(os.fsencode(request.path), os.fsencode(request.payload["target"]), request.owner())}


def make_symlink(path: bytes, target: bytes, owner: tuple[int, int]) -> bool:
    """Make a symbolic link; return False when there is one with this target already, which is fine."""
    try:
        os.symlink(target, path)
    except FileExistsError:
        if os.path.islink(path) and os.readlink(path) == target:
            return False
        raise
    os.chown(path, *owner, follow_symlinks=False)
    return True


def _delete(request: Request) -> dict[str, Any]:
    status = os.lstat(request.path)
    if stat.S_ISDIR(status.st_mode):
        os.rmdir(request.path)
    else:
        os.unlink(request.path)
    return {"deleted": True}


def _get_tree(request: Request) -> dict[str, Any]:
    status = os.lstat(request.path)
    if not stat.S_ISDIR(status.st_mode):
        raise BadRequest(f"{request.path!r} is no directory")
    _, (sink,) = request.ask({"type": "tree"})
    TreeWriter(sink).write(os.fsencode(request.path))
    return {"done": True}


class TreeWriter:
    """Writes a directory's tree as a tar stream; the members' names begin with the last part of the directory's.

    What is neither file, directory nor symbolic link is left out, and so is what vanishes meanwhile.
    """

    def __init__(self, sink: int) -> None:
        self._sink = sink
        self._buffer = bytearray()

    def write(self, top: bytes) -> None:
        """Write the tree at `top` and the archive's end."""
        for path, member in tarstream.walk(top):
            signal.alarm(STALLED_SECONDS)
            if member is None:
                continue
            if member.kind == tarstream.FILE:
                with contextlib.suppress(FileNotFoundError):
                    self._file(path, member)
            else:
                self._buffer += tarstream.header(member)
            if len(self._buffer) >= tarstream.CHUNK:
                self._flush()
        self._buffer += tarstream.END
        self._flush()

    def _file(self, path: bytes, member: tarstream.Member) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(tarstream.measure(member, fd).st_mode):
                return
            if member.extents is None and member.size <= _SMALL:
                content = os.read(fd, _SMALL)
                member.size = len(content)
                self._buffer += tarstream.header(member)
                self._buffer += content
            else:
                self._buffer += tarstream.header(member)
                self._flush()
                for offset, length in member.data:
                    os.lseek(fd, offset, os.SEEK_SET)
                    missing = length - send_file(self._sink, fd, length)
                    while missing:  # it has become shorter: the archive's length is promised
                        count = min(missing, _CHUNK)
                        write_all(self._sink, bytes(count))
                        missing -= count
            self._buffer += tarstream.padding(member.stored)
        finally:
            os.close(fd)

    def _flush(self) -> None:
        write_all(self._sink, self._buffer)
        self._buffer = bytearray()


def _put_tree(request: Request) -> dict[str, Any]:
    """Unpack a tar stream below the path; owners and modes are the members' for what is new."""
    top = os.fsencode(request.path)
    make_directory(top, request.owner(), request.mode(0o755))
    request.say_ready()
    count, above = 0, b""
    times: list[tuple[bytes, int]] = []

    def read() -> bytes:
        _wait_readable(request.source_fd)
        return os.read(request.source_fd, tarstream.CHUNK)

    reader = tarstream.Reader(read)
    for member in reader.members():
        path = os.path.join(top, *tarstream.parts(member.name))
        if os.path.dirname(path) != above:
            make_parents(path)
            above = os.path.dirname(path)
        if _unpack(top, path, member, reader, request.proc_fd) and member.kind == tarstream.DIRECTORY:
            times.append((path, member.mtime))
        count += 1
    for path, mtime in reversed(times):  # last, as what comes into a directory changes its time
        with contextlib.suppress(FileNotFoundError):
            os.utime(path, ns=(mtime, mtime), follow_symlinks=False)
    request.ask({"received": count})
    return {"members": count}


def _unpack(top: bytes, path: bytes, member: tarstream.Member, reader: tarstream.Reader, proc_fd: int) -> bool:
    """Make what a member is at `path`; return False when it is there already."""
    owner = (member.uid, member.gid)
    if member.kind == tarstream.DIRECTORY:
        return make_directory(path, owner, member.mode)
    if member.kind == tarstream.SYMLINK:
        if not make_symlink(path, member.target, owner):
            return False
        os.utime(path, ns=(member.mtime, member.mtime), follow_symlinks=False)
        return True
    if member.kind == tarstream.HARD_LINK:
        return _make_link(os.path.join(top, *tarstream.parts(member.target)), path)
    if member.kind == tarstream.FILE:
        with Spool(os.fsdecode(path), proc_fd) as spool:
            for offset, piece in reader.content(member):
                spool.write_at(piece, offset)
            if member.extents is not None:
                spool.end_at(member.size)
            spool.commit(owner, member.mode, member.mtime)
            return not spool.exists
    raise ValueError(f"{os.fsdecode(member.name)!r} is no file, directory or link")


def _make_link(source: bytes, path: bytes) -> bool:
    """Give a file a further name; return False when it has it already. What has the name is replaced."""
    try:
        if os.path.samestat(os.lstat(source), os.lstat(path)):
            return False
        os.unlink(path)
    except FileNotFoundError:
        pass  # of the source, the next step tells
    os.link(source, path, follow_symlinks=False)
    return True


def make_parents(path: bytes) -> None:
    """Make the directories above `path` that are missing, as root's."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        make_parents(parent)
        make_directory(parent, (0, 0), 0o755)


def translate(error: OSError, path: str) -> PylxcError:
    """Return the error that a client sees of a failed system call."""
    text = _TEXTS.get(error.errno or 0) or error.strerror or str(error)
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{path!r} not found")
    if isinstance(error, FileExistsError):
        return Conflict(f"{path!r} is there already and is something else")
    if isinstance(error, PermissionError):
        return Forbidden(f"{path!r}: {text}")
    return BadRequest(f"{path!r}: {text}")


_OPERATIONS = {
    "get": _get,
    "put": _put,
    "mkdir": _mkdir,
    "symlink": _symlink,
    "delete": _delete,
    "get-tree": _get_tree,
    "put-tree": _put_tree,
}
