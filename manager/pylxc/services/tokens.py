"""Tokens: secrets that are good for one thing, once. Each is an operation, and goes with the daemon."""

from __future__ import annotations

import datetime as dt
import hmac
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pylxc.db.models import Clock
from pylxc.errors import BadRequest, NotFound
from pylxc.services.operations import Operation, Operations

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class _Token(Generic[T]):
    operation: Operation
    grant: T
    expires_at: dt.datetime | None
    in_use: bool = False


class Tokens(Generic[T]):
    """The tokens of one kind that have been issued and not used; thread-safe.

    Args:
        operations: keeps them: who cancels the operation revokes the token.
        clock: tells the time.
    """

    def __init__(self, operations: Operations, clock: Clock) -> None:
        self._operations = operations
        self._clock = clock
        self._lock = threading.Lock()
        self._issued: dict[str, _Token[T]] = {}

    def issue(
        self,
        description: str,
        grant: T,
        *,
        project: str,
        expires_at: dt.datetime | None,
        resources: Mapping[str, Sequence[str]] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Operation:
        """Return an operation of class token; its metadata has the `secret`.

        Args:
            description: the operation's.
            grant: what the token is good for.
            project: the operation's.
            expires_at: when the token is good no more, None for never.
            resources: the operation's.
            metadata: of the operation, beside the secret.
        """
        secret = secrets.token_hex(32)
        with self._lock:
            self._forget()
            operation = self._operations.start(
                description,
                None,
                project=project,
                resources=resources or {},
                class_="token",
                metadata={"secret": secret, **(metadata or {})},
            )
            self._issued[secret] = _Token(operation=operation, grant=grant, expires_at=expires_at)
        return operation

    def look(self, secret: str, fits: Callable[[T], bool]) -> T | None:
        """Return what a token is good for, without using it up; None when there is no such token (any more)."""
        with self._lock:
            found = self._find(secret, fits)
            return found[1].grant if found else None

    def redeem(self, secret: str, fits: Callable[[T], bool]) -> T | None:
        """Use a token up and return what it is good for; None when there is no such token (any more)."""
        with self._lock:
            found = self._find(secret, fits)
            if found is None:
                return None
            self._end(*found)
            return found[1].grant

    @contextmanager
    def using(self, secret: str, fits: Callable[[T], bool]) -> Iterator[T | None]:
        """Use a token for the time of a block: nobody else can, and it is used up unless the block fails."""
        with self._lock:
            found = self._find(secret, fits)
            if found is not None:
                found[1].in_use = True
        if found is None:
            yield None
            return
        try:
            yield found[1].grant
        except BaseException:
            found[1].in_use = False
            raise
        with self._lock:
            self._end(*found)

    def _find(self, given: str, fits: Callable[[T], bool]) -> tuple[str, _Token[T]] | None:
        self._forget()
        tried = given.encode(errors="replace")
        for secret, token in self._issued.items():
            same = hmac.compare_digest(secret.encode(), tried)
            if same and not token.in_use and fits(token.grant):
                return secret, token
        return None

    def _end(self, secret: str, token: _Token[T]) -> None:
        self._issued.pop(secret, None)
        with suppress(BadRequest, NotFound):  # it was revoked
            self._operations.cancel(token.operation.id)

    def _forget(self) -> None:
        """Drop what was revoked and what has expired."""
        now = self._clock()
        for secret, token in list(self._issued.items()):
            if token.operation.is_done or (token.expires_at is not None and token.expires_at <= now):
                self._end(secret, token)
