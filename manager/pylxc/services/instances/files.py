"""Files of instances, running or not: every request is a process inside the instance's namespaces (`runtime.files`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from pylxc.db import snapshots
from pylxc.db.engine import Database
from pylxc.errors import BadRequest, Internal, PylxcError, Unavailable
from pylxc.kernel import fds as descriptors
from pylxc.paths import Paths
from pylxc.runtime import protocol
from pylxc.runtime.files import STALLED_SECONDS
from pylxc.runtime.handle import Runtime
from pylxc.runtime.spawn import Child
from pylxc.services.events import EventBus
from pylxc.services.instances import expand
from pylxc.services.storage.service import StoragePools

SMALL = 1 << 16
"""Bytes that a new pipe holds, so that they need not be waited for. See: pipe(7)"""
_ANSWER_SECONDS = STALLED_SECONDS + 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """What a file gets when it is made; None is the default. `mode` is permission bits, ids are inside."""

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None


class Transfer:
    """A request under way in a process of its own.

    Attributes:
        head: what the process has found: for reading `type`, `uid`, `gid`, `mode`, `modified` (ns), `size`.
    """

    def __init__(self, child: Child) -> None:
        self._child = child
        self.head: dict[str, Any] = {}

    def fileno(self) -> int:
        """A descriptor that can be read when `result` or `received` will not block."""
        return self._child.socket.fileno()

    def prepare(self) -> None:
        """Wait until the process has looked at the file.

        Raises:
            PylxcError: what is wrong with the file.
        """
        self.head = self._hear()

    def send_to(self, fd: int) -> None:
        """Let the process write the bytes to `fd`; the caller goes on owning its copy."""
        self._tell({"send": True}, [fd])

    def read_from(self, fd: int, size: int) -> None:
        """Let the process take `size` more bytes from `fd`, after those of `source_fd`."""
        self._tell({"rest": size}, [fd])

    def commit(self) -> None:
        """Say that all bytes have been given."""
        self._tell({"commit": True}, [])

    def result(self) -> dict[str, Any]:
        """Return the next thing that the process says.

        Raises:
            PylxcError: the request failed.
        """
        return self._hear()

    def abandon(self) -> None:
        """Want no more of it: what was not committed never was. A process that hangs is killed."""
        self._child.close()
        with suppress(PylxcError, OSError):
            if self._child.pid:
                self._child.kill()

    def end(self) -> None:
        """Let go after the last result."""
        self._child.close()

    def _tell(self, message: dict[str, Any], fds: list[int]) -> None:
        # A process that has failed has said why; that is read next.
        with suppress(BrokenPipeError):
            protocol.send(self._child.socket, message, fds)

    def _hear(self) -> dict[str, Any]:
        try:
            received = self._child.receive(_ANSWER_SECONDS)
        except TimeoutError:
            self.abandon()
            raise Unavailable("The instance's file system does not answer") from None
        if received is None:
            self.abandon()
            raise Unavailable("The instance's file system does not answer, or the instance has just stopped")
        message, fds = received
        descriptors.close(fds)
        if "error" in message:
            self.end()
            raise protocol.rebuild_error(message)
        return message


class InstanceFiles:
    """Files; thread-safe."""

    def __init__(
        self, database: Database, runtime: Runtime, storage: StoragePools, events: EventBus, paths: Paths
    ) -> None:
        self._database = database
        self._runtime = runtime
        self._storage = storage
        self._events = events
        self._paths = paths

    def read(self, project: str, name: str, path: str, snapshot: str = "") -> Transfer:
        """Begin to read a file, directory (a JSON list of names) or symbolic link (its target).

        Args:
            project: the instance's.
            name: the instance's.
            path: the file's.
            snapshot: read it in this snapshot of the instance.

        Raises:
            NotFound: no such instance, snapshot or file.
            BadRequest: it is something else than these three.
        """
        return self._begin("get", project, name, path, snapshot=snapshot)

    def read_tree(self, project: str, name: str, path: str, snapshot: str = "") -> Transfer:
        """Begin to read a directory's tree as a tar stream, see `runtime.files.TreeWriter`; like `read`."""
        return self._begin("get-tree", project, name, path, snapshot=snapshot)

    def write(
        self, project: str, name: str, path: str, source_fd: int, new: NewFile, *, append: bool = False
    ) -> Transfer:
        """Begin to create, overwrite or extend a file from `source_fd`; nothing counts before `commit`.

        Raises:
            NotFound: no such instance or directory.
            BadRequest: what is there is no file.
        """
        return self._begin("put", project, name, path, [source_fd], append=append, **asdict(new))

    def write_small(
        self, project: str, name: str, path: str, data: bytes, new: NewFile, *, append: bool = False
    ) -> None:
        """Create, overwrite or extend a file by `data`, at most `SMALL` bytes; raises like `write`."""
        source, sink = os.pipe()
        try:
            with open(sink, "wb", buffering=0) as pipe:
                pipe.write(data)
            self._do("put", project, name, path, fds=[source], whole=True, append=append, **asdict(new))
        finally:
            os.close(source)
        self.pushed(project, name, path)

    def write_tree(self, project: str, name: str, path: str, source_fd: int, new: NewFile) -> Transfer:
        """Begin to unpack a tar stream below the directory `path`; raises like `write`."""
        return self._begin("put-tree", project, name, path, [source_fd], **asdict(new))

    def make_directory(self, project: str, name: str, path: str, new: NewFile) -> None:
        """Make a directory; one that is there already is fine. Raises like `write`."""
        self._do("mkdir", project, name, path, **asdict(new))
        self.pushed(project, name, path)

    def make_symlink(self, project: str, name: str, path: str, target: str, new: NewFile) -> None:
        """Make a symbolic link; one that is there already with this target is fine. Raises like `write`."""
        self._do("symlink", project, name, path, target=target, **asdict(new))
        self.pushed(project, name, path)

    def delete(self, project: str, name: str, path: str) -> None:
        """Delete a file, a symbolic link or an empty directory; raises like `read`."""
        self._do("delete", project, name, path)
        self._announce("deleted", project, name, path)

    def pushed(self, project: str, name: str, path: str) -> None:
        """Publish that a file was written."""
        self._announce("pushed", project, name, path)

    def retrieved(self, project: str, name: str, path: str, snapshot: str = "") -> None:
        """Publish that a file was read."""
        self._announce("retrieved", project, f"{name}/snapshots/{snapshot}" if snapshot else name, path)

    def _announce(self, verb: str, project: str, name: str, path: str) -> None:
        self._events.lifecycle(
            f"instance-file-{verb}", f"/1.0/instances/{name}", project=project, context={"path": path}
        )

    def _do(self, operation: str, project: str, name: str, path: str, **options: Any) -> None:
        self._begin(operation, project, name, path, **options).end()

    def _begin(
        self,
        operation: str,
        project: str,
        name: str,
        path: str,
        fds: list[int] | None = None,
        snapshot: str = "",
        **options: Any,
    ) -> Transfer:
        if not path:
            raise BadRequest("Missing path argument")
        if "\0" in path:
            raise BadRequest("A path holds no zero bytes")
        payload = {"op": operation, "path": path, **options, **self._place(project, name, snapshot)}
        transfer = Transfer(self._runtime.spawn("files", payload, fds or []))
        transfer.prepare()
        return transfer

    def _place(self, project: str, name: str, snapshot: str) -> Mapping[str, Any]:
        """Return where the instance's files are, or a snapshot's, as `runtime.cell.enter` takes it."""
        with self._database.reading() as session:
            record = expand.load(session, project, name)
            if snapshot:
                snapshots.get(session, project, name, snapshot)
            elif self._runtime.get(record.key) is not None:
                return {"run_dir": self._paths.instance_run(record.key)}
            idmap = expand.choose_idmap(session, record)
        rootfs = f"{self._storage.volumes.path(record.pool, project, name, snapshot)}/rootfs"
        if not os.path.isdir(rootfs):
            raise Internal(f"Instance {name!r} has no root file system")
        return {"rootfs": rootfs, "idmap": idmap and asdict(idmap), "shift": True, "readonly": bool(snapshot)}
