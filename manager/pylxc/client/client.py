"""The entry object of the Python API: requests, envelopes, errors; the entities hang off it."""

from __future__ import annotations

import os

from pylxc.client import codec
from pylxc.client.http import Connection, Response, connect_unix, with_query
from pylxc.errors import Internal, for_status
from pylxc.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from pylxc.client.http import Body, Stream
    from pylxc.client.images import Images
    from pylxc.client.instances import Instances
    from pylxc.client.named import Networks, Profiles, Projects, StoragePools
    from pylxc.client.operations import Operation, Operations


def default_socket() -> str:
    """Return the socket that a client talks to: $LXD_SOCKET, else `unix.socket` in the state directory."""
    return os.environ.get("LXD_SOCKET") or Paths().socket


_PREFER = {"Prefer": "wait=1"}
"""Short work is answered at its end, so that nobody has to ask for that: extension pylxc_prefer_wait."""


class Reply:
    """A successful answer: `metadata` as the server sent it, its `etag` and `location` if it named any."""

    __slots__ = ("envelope", "etag", "location", "metadata", "status")

    def __init__(self, response: Response, envelope: dict[str, Any]) -> None:
        self.status = response.status
        self.etag = response.headers.get("etag", "").strip('"')
        self.location = response.headers.get("location", "")
        self.envelope = envelope
        self.metadata: Any = envelope.get("metadata")


class Client:
    """A client of one server; not thread-safe, as it holds one connection.

    Args:
        socket_path: the server's unix socket; `default_socket()` when None.
        project: the project that instances, images, profiles and so on are looked up in.
        dial: opens the stream instead of `connect_unix`.
        is_local: what `dial` opens is a unix socket.

    Attributes:
        is_local: descriptors can be passed to the server: it is on this host.
        on_answer: called with method, target and status of every answer; for debugging.

    Example:
        >>> client = Client()
        >>> client.instances.create("c01", {"type": "image", "alias": "debian/12", "protocol": "recipe"}).wait()
        >>> client.instances.start("c01").wait()
        >>> client.instances.exec("c01", ["cat", "/etc/os-release"]).stdout
    """

    def __init__(
        self,
        socket_path: str | None = None,
        *,
        project: str = "default",
        dial: Callable[[], Stream] | None = None,
        is_local: bool = True,
    ) -> None:
        path = socket_path or default_socket()
        self.project = project
        self.is_local = is_local
        self.dial = dial or (lambda: connect_unix(path))
        self.connection = self.connect()
        self._extensions: frozenset[str] | None = None
        self.on_answer: Callable[[str, str, int], None] | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        self.connection.close()

    def connect(self) -> Connection:
        """Return a further connection to the same server, for what must run beside a request."""
        return Connection(self.dial)

    def target(self, path: str, query: Mapping[str, str | int] | None = None) -> str:
        """Return `path` with `query` and the project in it, as it is sent."""
        full = dict(query or {})
        if self.project != "default" and "project" not in full and "all-projects" not in full:
            full["project"] = self.project
        return with_query(path, full)

    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Response:
        """Send a request and return its raw answer, errors raised; for bodies that are not JSON.

        Raises:
            PylxcError: the class that belongs to the status, with the server's text.
        """
        target = self.target(path, query)
        response = self.connection.request(method, target, headers, body, on_bytes)
        if self.on_answer:
            self.on_answer(method, target, response.status)
        if response.status >= 400:
            raise _error(response)
        return response

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str | int] | None = None,
        if_match: str = "",
    ) -> Reply:
        """Send a request with a JSON body (none when `body` is None) and return its unwrapped answer.

        Raises:
            PylxcError: the class that belongs to the status, with the server's text.
        """
        return unwrap(self._send(method, path, body, query, if_match, {}))

    def _send(
        self,
        method: str,
        path: str,
        body: object,
        query: Mapping[str, str | int] | None,
        if_match: str,
        headers: dict[str, str],
    ) -> Response:
        if body is not None:
            headers["Content-Type"] = "application/json"
        if if_match:
            headers["If-Match"] = if_match
        payload = None if body is None else codec.dumps(body).encode()
        return self.stream(method, path, query=query, headers=headers, body=payload)

    def get(self, path: str, **query: str | int) -> Any:
        """Return the metadata of a GET; `all_projects=...` becomes the query's `all-projects=...`."""
        return self.request("GET", path, query={key.replace("_", "-"): value for key, value in query.items()}).metadata

    def start(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str | int] | None = None,
        if_match: str = "",
    ) -> Operation:
        """Send a request that starts an operation and return that; one that is done when the answer is synchronous."""
        from pylxc.client.operations import Operation

        response = self._send(method, path, body, query, if_match, dict(_PREFER))
        if "preference-applied" in response.headers:
            begun = {"id": response.headers["location"].rpartition("/")[2], "status_code": 103}
            return Operation(self, begun, response)
        reply = unwrap(response)
        return Operation(self, reply.metadata if reply.envelope.get("type") == "async" else None)

    def upload(
        self,
        path: str,
        body: Body,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str | int] | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Operation:
        """POST a body that is not JSON (image, backup) and return the operation that it starts."""
        from pylxc.client.operations import Operation

        full = {"Content-Type": "application/octet-stream", **(headers or {})}
        reply = unwrap(self.stream("POST", path, query=query, headers=full, body=body, on_bytes=on_bytes))
        return Operation(self, reply.metadata if reply.envelope.get("type") == "async" else None)

    def has_extension(self, name: str) -> bool:
        """Return whether the server announces the API extension `name`; asks it once."""
        if self._extensions is None:
            self._extensions = frozenset(self.get("/1.0")["api_extensions"])
        return name in self._extensions

    @property
    def server(self) -> dict[str, Any]:
        """The server's description: `GET /1.0`."""
        return dict(self.get("/1.0"))

    @property
    def instances(self) -> Instances:
        """Instances: create, start, exec, files."""
        from pylxc.client.instances import Instances

        return Instances(self)

    @property
    def images(self) -> Images:
        """Images and their aliases."""
        from pylxc.client.images import Images

        return Images(self)

    @property
    def operations(self) -> Operations:
        """Operations that are running or have just ended."""
        from pylxc.client.operations import Operations

        return Operations(self)

    @property
    def profiles(self) -> Profiles:
        """Profiles."""
        from pylxc.client.named import Profiles

        return Profiles(self)

    @property
    def networks(self) -> Networks:
        """Networks."""
        from pylxc.client.named import Networks

        return Networks(self)

    @property
    def storage_pools(self) -> StoragePools:
        """Storage pools."""
        from pylxc.client.named import StoragePools

        return StoragePools(self)

    @property
    def projects(self) -> Projects:
        """Projects."""
        from pylxc.client.named import Projects

        return Projects(self)


def unwrap(response: Response) -> Reply:
    """Read an answer's envelope.

    Raises:
        PylxcError: it is an error; the class that belongs to the status, with the server's text.
        Internal: it is not JSON, or no envelope.
    """
    if response.status >= 400:
        raise _error(response)
    try:
        envelope = codec.loads(response.read().decode())
    except ValueError as error:
        raise Internal("The server's answer is not JSON") from error
    if not isinstance(envelope, dict):
        raise Internal("The server's answer is none of LXD's protocol")
    if code := int(envelope.get("error_code") or 0):
        raise for_status(code, str(envelope.get("error", "")))
    return Reply(response, envelope)


def _error(response: Response) -> Exception:
    text = response.read().decode(errors="replace")
    try:
        envelope = codec.loads(text)
        return for_status(int(envelope.get("error_code") or response.status), str(envelope["error"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return for_status(response.status, f"The server answers {response.status}: {text.strip()[:200]}")
