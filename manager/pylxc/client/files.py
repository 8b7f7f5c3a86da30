"""Files of an instance, streamed."""

from __future__ import annotations

from pylxc.client import codec
from pylxc.client.http import with_query
from pylxc.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pylxc.client.client import Client
    from pylxc.client.http import Body, Response

TREE_EXTENSION = "pylxc_file_tree"


class FileHead:
    """What the server says of a file: `type` (file, directory, symlink), `uid`, `gid` and `mode` (permission bits)."""

    __slots__ = ("gid", "mode", "type", "uid")

    def __init__(self, headers: dict[str, str]) -> None:
        self.type = headers.get("x-lxd-type", "file")
        self.uid = int(headers.get("x-lxd-uid") or 0)
        self.gid = int(headers.get("x-lxd-gid") or 0)
        self.mode = int(headers.get("x-lxd-mode") or "0644", 8) & 0o7777


class Files:
    """The files of the instance `name`, or of a snapshot of it, to be read only; paths are absolute ones inside it."""

    def __init__(self, client: Client, name: str, snapshot: str = "") -> None:
        from pylxc.client.http import quote

        self._client = client
        self.name = name
        place = f"/1.0/instances/{quote(name)}"
        self._path = f"{place}/snapshots/{quote(snapshot)}/files" if snapshot else f"{place}/files"

    def of_snapshot(self, snapshot: str) -> Files:
        """Return the files of a snapshot (extension `pylxc_snapshot_files`)."""
        return Files(self._client, self.name, snapshot)

    def open(self, path: str) -> tuple[FileHead, Response]:
        """Begin to read a file; `into(fd)`, `chunks()` or `read()` of the response give its content.

        For a directory the content is for `entries`, for a symbolic link it is the target.

        Raises:
            NotFound: there is no such file.
        """
        response = self._client.stream("GET", self._path, query={"path": path})
        return FileHead(response.headers), response

    @staticmethod
    def entries(response: Response) -> list[str]:
        """Return the names in the directory that `open` was called on."""
        return list(codec.loads(response.read().decode())["metadata"] or [])

    def head(self, path: str) -> FileHead | None:
        """Return what the server says of a file, None when there is none."""
        try:
            return FileHead(self._client.stream("HEAD", self._path, query={"path": path}).headers)
        except NotFound:
            return None

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        return self.open(path)[1].read()

    def write(
        self,
        path: str,
        body: Body,
        *,
        kind: str = "file",
        uid: int = -1,
        gid: int = -1,
        mode: int = -1,
        append: bool = False,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        """Create or overwrite a file, or create a directory or a symbolic link.

        Args:
            path: where.
            body: the content; the target of a symbolic link; see `Connection.request` for what it may be.
            kind: "file", "directory", "symlink".
            uid: owner of a file that is new, -1 for the server's default.
            gid: group of a file that is new, -1 for the server's default.
            mode: permission bits of a file that is new, -1 for the server's default.
            append: add to the file's end.
            on_bytes: called with the number of bytes after each piece sent.
        """
        headers = {"Content-Type": "application/octet-stream", "X-LXD-type": kind}
        if append:
            headers["X-LXD-write"] = "append"
        for key, value in (("uid", uid), ("gid", gid)):
            if value >= 0:
                headers[f"X-LXD-{key}"] = str(value)
        if mode >= 0:
            headers["X-LXD-mode"] = f"{mode:04o}"
        self._client.stream(
            "POST", self._path, query={"path": path}, headers=headers, body=body, on_bytes=on_bytes
        ).drain()

    def delete(self, path: str) -> None:
        """Delete a file or an empty directory."""
        self._client.request("DELETE", with_query(self._path, {"path": path}))

    def pull_tree(self, path: str) -> Response:
        """Begin to read the tree at `path` as a tar archive (extension `pylxc_file_tree`)."""
        return self._client.stream("GET", self._path, query={"path": path, "tree": 1})

    def push_tree(self, path: str, body: Body, on_bytes: Callable[[int], None] | None = None) -> None:
        """Unpack a tar archive below the directory `path` (extension `pylxc_file_tree`)."""
        headers = {"Content-Type": "application/x-tar", "X-LXD-type": "tree"}
        self._client.stream(
            "POST", self._path, query={"path": path}, headers=headers, body=body, on_bytes=on_bytes
        ).drain()
