"""Entity tags: what a client has read, for If-Match."""

from __future__ import annotations

import hashlib
import hmac
import json

from pylxc.errors import PreconditionFailed


def etag(*fields: object) -> str:
    """Return the tag (hex, without quotes) of JSON-ready `fields`; the order counts, that of keys in maps does not."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def check(if_match: str | None, *fields: object) -> None:
    """Compare a request's If-Match with the tag of `fields` as they are now.

    Args:
        if_match: the header's tag without quotes; None or "" asks for no comparison, "*" matches anything.
        fields: what `etag` was given when the thing was read.

    Raises:
        PreconditionFailed: the thing has changed.
    """
    if if_match and if_match != "*" and not hmac.compare_digest(if_match.encode(), etag(*fields).encode()):
        raise PreconditionFailed("ETag does not match: it was changed meanwhile", hint="read it again and retry")
