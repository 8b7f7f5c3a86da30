"""Every error that pylxc shows to a user, and the HTTP status it maps to.

Kernel code raises plain `OSError`; drivers, runtime and services translate at their own border, where they can say
more than `from_os`, which the operations and the API fall back on. Only
`pylxc.api` turns these into HTTP answers and only `pylxc.client` turns answers back into these.
"""

from __future__ import annotations

import os


class PylxcError(Exception):
    """An error with one line for the user.

    Args:
        message: what is wrong, one line, without a final dot.
        hint: what to do about it; shown after the message where there is room.
    """

    http_status = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class BadRequest(PylxcError):
    """The request is malformed or a value in it is invalid."""

    http_status = 400


class NotAuthorized(PylxcError):
    """The caller is not known."""

    http_status = 401


class Forbidden(PylxcError):
    """The caller may not do this."""

    http_status = 403


class NotFound(PylxcError):
    """The thing that is named does not exist."""

    http_status = 404


class Conflict(PylxcError):
    """The name is taken, or the thing is in use or busy."""

    http_status = 409


class PreconditionFailed(PylxcError):
    """If-Match does not match: the thing has changed since it was read."""

    http_status = 412


class NotSupported(PylxcError):
    """The dialect knows this, this server does not do it."""

    http_status = 501


class Unavailable(PylxcError):
    """The server is starting, stopping, or lacks something it needs."""

    http_status = 503


class DatabaseUnusable(Unavailable):
    """The database is damaged, gone, or of another version; the server does not start."""


class Internal(PylxcError):
    """Something failed on the server's side."""

    http_status = 500


class Cancelled(PylxcError):
    """The operation was cancelled by its user."""

    http_status = 400


_BY_STATUS: dict[int, type[PylxcError]] = {
    400: BadRequest,
    401: NotAuthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    501: NotSupported,
    503: Unavailable,
}


def from_os(error: OSError) -> Internal:
    """Return what a user is told of a system call's failure that nobody on the way had more to say about."""
    text = error.strerror or str(error) or type(error).__name__
    return Internal(f"{text}: {os.fsdecode(error.filename)!r}" if isinstance(error.filename, str | bytes) else text)


def for_status(status: int, message: str) -> PylxcError:
    """Return the error class instance for an HTTP status, `Internal` for one that is not known."""
    return _BY_STATUS.get(status, Internal)(message)
