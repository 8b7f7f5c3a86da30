"""Join tokens: each lets one client in, once. They are operations, and go with the daemon."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from typing import Any

from pylxc.db.models import Clock
from pylxc.errors import Forbidden
from pylxc.services import expiry
from pylxc.services.operations import Operation, Operations
from pylxc.services.tokens import Tokens
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
        self._lifetime = lifetime
        self._clock = clock
        self._tokens: Tokens[CertificatesPost] = Tokens(operations, clock)

    def issue(self, request: CertificatesPost, fingerprint: str, addresses: list[str]) -> Operation:
        """Return the operation whose metadata is a token.

        Args:
            request: what the client that brings it will be: name, type, restricted, projects.
            fingerprint: of this server's certificate.
            addresses: where this server can be reached, HOST:PORT.
        """
        expires_at = expiry.after(self._clock(), self._lifetime())
        metadata: dict[str, Any] = {
            "fingerprint": fingerprint,
            "addresses": addresses,
            "request": {**request, "token": True},
            "expiresAt": timestamp(expires_at),
        }
        return self._tokens.issue(DESCRIPTION, request, project="", expires_at=expires_at, metadata=metadata)

    def redeem(self, token: JoinToken) -> CertificatesPost:
        """Use a token up and return what it is good for.

        Raises:
            Forbidden: there is no such token (any more).
        """
        found = self._tokens.redeem(token["secret"], lambda request: request.get("name", "") == token["client_name"])
        if found is None:
            raise Forbidden("No matching certificate add operation found")
        return found


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
