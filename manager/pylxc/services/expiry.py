"""When snapshots and backups expire: `1M 2H 3d 4w 5m 6y` from a moment on, by the calendar."""

from __future__ import annotations

import datetime as dt

from dateutil.relativedelta import relativedelta

from pylxc.errors import BadRequest
from pylxc.wire.times import parse_timestamp

_UNITS = {"S": "seconds", "M": "minutes", "H": "hours", "d": "days", "w": "weeks", "m": "months", "y": "years"}


def after(moment: dt.datetime, text: str) -> dt.datetime | None:
    """Return the time that lies `text` after `moment`, None for "" and for nothing but zeros (never).

    Args:
        moment: an aware time.
        text: as `validate.expiry` allows it.
    """
    amounts = {_UNITS[part[-1]]: int(part[:-1]) for part in text.split()}
    if not any(amounts.values()):
        return None
    try:
        return moment + relativedelta(**amounts)  # type: ignore[arg-type]
    except (OverflowError, ValueError):
        return None  # after the end of the calendar


def given(text: str | None) -> dt.datetime | None:
    """Return the time that a request names, None for never; raises BadRequest."""
    try:
        return parse_timestamp(text or "")
    except ValueError as error:
        raise BadRequest(f"Invalid expires_at: {error}") from error
