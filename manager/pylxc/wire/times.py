"""Times as the wire has them: RFC 3339 with a zone (Go's parser refuses a naive one)."""

from __future__ import annotations

import datetime as dt

NEVER = "0001-01-01T00:00:00Z"
NEVER_USED = "1970-01-01T00:00:00Z"


def timestamp(moment: dt.datetime | None, absent: str = NEVER) -> str:
    """Return `moment` in UTC, `2026-01-31T09:08:07.123456Z`; `absent` when there is none.

    Args:
        moment: an aware time.
        absent: `NEVER`, or `NEVER_USED` for `last_used_at`.
    """
    if moment is None:
        return absent
    return moment.astimezone(dt.UTC).replace(tzinfo=None).isoformat() + "Z"


def now() -> str:
    """Return the present time in the wire's form."""
    return timestamp(dt.datetime.now(dt.UTC))


def parse_timestamp(text: str) -> dt.datetime | None:
    """Return the aware time that `text` names, None for "" and the wire's "never".

    Raises:
        ValueError: `text` is no RFC 3339 time with a zone.
    """
    if not text or text.startswith("0001-01-01T00:00:00"):
        return None
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time {text!r} has no zone")
    return moment.astimezone(dt.UTC)
