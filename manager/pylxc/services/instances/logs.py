"""The log files of an instance."""

from __future__ import annotations

import os
import re

from pylxc.db import instances
from pylxc.db.engine import Database
from pylxc.errors import BadRequest, NotFound
from pylxc.paths import Paths, storage_name
from pylxc.services.events import EventBus
from pylxc.services.instances.expand import url

_VALID = re.compile(r"(lxc\.log|lxc\.conf|qemu\.log|(migration|snapshot|exec)_[\w.-]+)")


class InstanceLogs:
    """Reads and deletes log files; thread-safe."""

    def __init__(self, database: Database, events: EventBus, paths: Paths) -> None:
        self._database = database
        self._events = events
        self._paths = paths

    def list(self, project: str, name: str) -> list[str]:
        """Return the URLs of an instance's log files; raises NotFound."""
        folder = self._folder(project, name)
        try:
            files = sorted(os.listdir(folder))
        except FileNotFoundError:
            files = []
        base, _, query = url(project, name).partition("?")
        suffix = f"?{query}" if query else ""
        return [f"{base}/logs/{file}{suffix}" for file in files if _VALID.fullmatch(file)]

    def read(self, project: str, name: str, file: str) -> str:
        """Return the path of a log file, for somebody who reads it; "" for an `lxc.log` that has nothing in it yet.

        Raises:
            NotFound: no such instance or log.
            BadRequest: no log has such a name.
        """
        path = self._path(project, name, file)
        self._announce("retrieved", project, name, file)
        return path

    def delete(self, project: str, name: str, file: str) -> None:
        """Delete a log file; raises like `read`, and BadRequest for the files that LXD keeps."""
        path = self._path(project, name, file)
        if file in ("lxc.conf", "lxc.log"):
            raise BadRequest(f"{file} cannot be deleted")
        os.unlink(path)
        self._announce("deleted", project, name, file)

    def _path(self, project: str, name: str, file: str) -> str:
        folder = self._folder(project, name)
        if not _VALID.fullmatch(file):
            raise BadRequest(f"Log file name {file!r} not valid")
        path = f"{folder}/{file}"
        if not os.path.isfile(path):
            if file == "lxc.log":
                return ""
            raise NotFound(f"Log file {file!r} not found")
        return path

    def _folder(self, project: str, name: str) -> str:
        with self._database.reading() as session:
            instances.get(session, project, name)
        return self._paths.instance_logs(storage_name(project, name))

    def _announce(self, verb: str, project: str, name: str, file: str) -> None:
        self._events.lifecycle(f"instance-log-{verb}", f"/1.0/instances/{name}/logs/{file}", project=project)
