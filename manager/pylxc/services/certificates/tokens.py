"""Join tokens: each lets one client in, once. They are operations, and go with the daemon."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hmac
import json
import secrets
import threading
from collections.abc import Callable
from typing import Any

from pylxc.db.models import Clock
from pylxc.errors import Forbidden
from pylxc.services import expiry
from pylxc.services.operations import Operation, Operations
from pylxc.wire.certificates import CertificatesPost, JoinToken
from pylxc.wire.times import timestamp

DESCRIPTION = "Executing operation"
"""As LXD's; what tells such an operation from others of its class is `request` in its metadata."""


class JoinTokens:
    """The tokens that have been issued and not used; thread-safe.

    Args:
        operations: keeps them.
        lifetime: returns how long a token is good, as `validate.expiry` has it; "" is for ever.
        clock: tells the time.
    """

    def __init__(self, operations: Operations, lifetime: Callable[[], str], clock: Clock) -> None:
        self._operations = operations
        self._lifetime = lifetime
        self._clock = clock
        self._lock = threading.Lock()
        self._issued: dict[str, tuple[Operation, CertificatesPost, dt.datetime | None]] = {}

    def issue(self, request: CertificatesPost, fingerprint: str, addresses: list[str]) -> Operation:
        """Return the operation whose metadata is a token.

        Args:
            request: what the client that brings it will be: name, type, restricted, projects.
            fingerprint: of this server's certificate.
            addresses: where this server can be reached, HOST:PORT.
        """
        expires_at = expiry.after(self._clock(), self._lifetime())
        metadata: dict[str, Any] = {
            "secret": secrets.token_hex(32),
            "fingerprint": fingerprint,
            "addresses": addresses,
            "request": {**request, "token": True},
            "expiresAt": timestamp(expires_at),
        }
        with self._lock:
            self._forget()
            operation = self._operations.start(
                DESCRIPTION, None, project="", resources={}, class_="token", metadata=metadata
            )
            self._issued[metadata["secret"]] = (operation, request, expires_at)
        return operation

    def redeem(self, token: JoinToken) -> CertificatesPost:
        """Use a token up and return what it is good for.

        Raises:
            Forbidden: there is no such token (any more).
        """
        with self._lock:
            self._forget()
            for secret, (operation, request, _) in self._issued.items():
                same = hmac.compare_digest(secret.encode(), token["secret"].encode())
                if same and request.get("name", "") == token["client_name"]:
                    del self._issued[secret]
                    self._operations.cancel(operation.id)
                    return request
        raise Forbidden("No matching certificate add operation found")

    def _forget(self) -> None:
        """Drop what was revoked and what has expired."""
        now = self._clock()
        for secret, (operation, _, expires_at) in list(self._issued.items()):
            if expires_at is not None and expires_at <= now and not operation.is_done:
                self._operations.cancel(operation.id)
            if operation.is_done:
                del self._issued[secret]


def decode(text: str) -> JoinToken | None:
    """Return the token in a text, None when it is none: a password, then."""
    try:
        found = json.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    texts = {key: found.get(key) for key in ("client_name", "fingerprint", "secret")}
    if not all(isinstance(value, str) and value for value in texts.values()):
        return None
    return JoinToken(
        client_name=found["client_name"],
        fingerprint=found["fingerprint"],
        addresses=[],
        secret=found["secret"],
        expires_at=str(found.get("expires_at", "")),
    )
