"""Operations: the server's long work, waited for, watched and cancelled."""

from __future__ import annotations

from pylxc.client.client import unwrap
from pylxc.client.http import quote, with_query
from pylxc.errors import Cancelled, Internal, PylxcError, Unavailable, for_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pylxc.client.client import Client
    from pylxc.client.http import Response

CANCELLED = 401


class Operation:
    """One operation.

    Attributes:
        data: the operation object as last seen; `{}` when the server did the work at once.

    Args:
        client: what has begun it.
        data: see above; of an operation that `answer` will tell of, its id and status.
        answer: an answer whose body arrives when the operation has ended or has taken too long.
    """

    __slots__ = ("_answer", "_client", "data")

    def __init__(self, client: Client, data: dict[str, Any] | None, answer: Response | None = None) -> None:
        self._client = client
        self._answer = answer
        self.data: dict[str, Any] = data or {}

    @property
    def id(self) -> str:
        """The operation's id, empty when there is none."""
        return str(self.data.get("id", ""))

    @property
    def path(self) -> str:
        """The operation's path on the server."""
        return f"/1.0/operations/{self.id}"

    @property
    def done(self) -> bool:
        """Whether the operation has ended, well or not."""
        return not self.data or int(self.data.get("status_code", 0)) >= 200

    @property
    def metadata(self) -> dict[str, Any]:
        """What the operation tells about itself: results, secrets, progress."""
        return dict(self.data.get("metadata") or {})

    def wait(self, on_tick: Callable[[], None] | None = None, tick: float = 0.1) -> Operation:
        """Wait until the operation has ended and return it.

        Args:
            on_tick: called while waiting, for progress.
            tick: seconds between two calls of it.

        Raises:
            Cancelled: somebody cancelled it.
            Unavailable: the server stops before that.
            PylxcError: it failed; the text is the server's.
        """
        if not self.done and self._answer is not None:
            answer, self._answer = self._answer, None
            if answer.pending:
                self._arrive(on_tick, tick)
                self._take(answer)
        if not self.done:
            connection = self._client.connection
            connection.send_only("GET", with_query(f"{self.path}/wait", {"timeout": -1}))
            self._arrive(on_tick, tick)
            self._take(connection.receive())
            if not self.done:
                raise Unavailable("The server is stopping, and does not wait for the operation any more")
        return self.check()

    def _arrive(self, on_tick: Callable[[], None] | None, tick: float) -> None:
        while on_tick and not self._client.connection.wait_readable(tick):
            on_tick()

    def _take(self, response: Response) -> None:
        data = unwrap(response).metadata
        if not isinstance(data, dict):
            raise Internal("The server's answer is no operation")
        self.data = data

    def check(self) -> Operation:
        """Raise the error of an operation that has failed; return itself otherwise."""
        code = int(self.data.get("status_code", 200))
        if code == CANCELLED:
            raise Cancelled(str(self.data.get("err") or "The operation was cancelled"))
        if code >= 400:
            raise for_status(code, str(self.data.get("err") or "The operation failed"))
        return self

    def refresh(self) -> Operation:
        """Read the operation's present state."""
        self.data = self._client.get(self.path)
        return self

    def cancel(self) -> bool:
        """Ask the server to cancel the operation; return whether it agreed."""
        if self.done:
            return False
        try:
            # The client's own connection may be waiting for the operation's end.
            connection = self._client.connect()
            answer = connection.request("DELETE", self.path)
            connection.close()
        except PylxcError:
            return False
        return answer.status < 400

    def first(self, kind: str) -> str:
        """Return the name of the first resource of `kind` ("instances", "images", ...) that the operation made."""
        urls = (self.data.get("resources") or {}).get(kind) or []
        if not urls:
            raise Internal(f"The operation names no {kind}")
        return str(urls[0]).split("?")[0].rpartition("/")[2]


class Operations:
    """The server's operations."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> list[dict[str, Any]]:
        """Return the operations of the project, those that have ended within five seconds included."""
        groups = self._client.get("/1.0/operations", recursion=1)
        return [operation for group in groups.values() for operation in group]

    def get(self, operation_id: str) -> dict[str, Any]:
        """Return one operation."""
        return dict(self._client.get(f"/1.0/operations/{quote(operation_id)}"))

    def cancel(self, operation_id: str) -> None:
        """Cancel an operation.

        Raises:
            BadRequest: it cannot be cancelled.
        """
        self._client.request("DELETE", f"/1.0/operations/{quote(operation_id)}")
