"""The log files of an instance."""

from __future__ import annotations

import os
import re

from pylxc.errors import BadRequest, NotFound
from pylxc.paths import Paths, storage_name
from pylxc.services.instances.expand import url

_VALID = re.compile(r"(lxc\.log|lxc\.conf|qemu\.log|(migration|snapshot|exec)_[\w.-]+)")


class Logs:
    """Reads and deletes log files; thread-safe. The caller has made sure that the instance exists."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def list(self, project: str, name: str) -> list[str]:
        """Return the URLs of an instance's log files."""
        folder = self._paths.instance_logs(storage_name(project, name))
        try:
            files = sorted(os.listdir(folder))
        except FileNotFoundError:
            files = []
        base, _, query = url(project, name).partition("?")
        suffix = f"?{query}" if query else ""
        return [f"{base}/logs/{file}{suffix}" for file in files if _VALID.fullmatch(file)]

    def path(self, project: str, name: str, file: str) -> str:
        """Return the path of a log file.

        Raises:
            BadRequest: no log has such a name.
            NotFound: it is not there.
        """
        if not _VALID.fullmatch(file):
            raise BadRequest(f"Log file name {file!r} not valid")
        path = f"{self._paths.instance_logs(storage_name(project, name))}/{file}"
        if not os.path.isfile(path):
            raise NotFound(f"Log file {file!r} not found")
        return path

    def delete(self, project: str, name: str, file: str) -> None:
        """Delete a log file; raises like `path`, and BadRequest for the files that LXD keeps."""
        path = self.path(project, name, file)
        if file in ("lxc.conf", "lxc.log"):
            raise BadRequest(f"{file} cannot be deleted")
        os.unlink(path)
