"""When snapshots are due. See: LXD doc instances, snapshots.schedule."""

from __future__ import annotations

import datetime as dt
import zlib

_ALIASES = {
    "hourly": "{minute} * * * *",
    "daily": "{minute} {hour} * * *",
    "midnight": "{minute} 0 * * *",
    "weekly": "{minute} {hour} * * 0",
    "monthly": "{minute} {hour} 1 * *",
    "annually": "{minute} {hour} 1 1 *",
    "yearly": "{minute} {hour} 1 1 *",
}


def is_due(schedule: str, key: str, since: dt.datetime, at: dt.datetime) -> bool:
    """Tell whether a moment of a schedule lies after `since` and not after `at`.

    Args:
        schedule: as `validate.schedule` allows it; cron fields are in the host's time zone.
        key: of the instance or volume: @hourly and the like are spread over the hour and the day by it, always alike.
        since: when it was looked last.
        at: now.
    """
    from croniter import croniter

    local = at.astimezone()
    number = zlib.crc32(key.encode())
    for entry in entries(schedule):
        fields = _ALIASES.get(entry[1:]) if entry.startswith("@") else entry
        if fields is None:
            continue  # @startup and @never
        fields = fields.format(minute=number % 60, hour=number // 60 % 24)
        # A second later, so that the moment `at` itself counts.
        last: dt.datetime = croniter(fields, local + dt.timedelta(seconds=1)).get_prev(dt.datetime)
        if since < last <= at:
            return True
    return False


def entries(schedule: str) -> list[str]:
    """Return the entries of a schedule: one of cron's, or names such as @daily."""
    if not schedule.lstrip().startswith("@"):
        return [schedule] if schedule.strip() else []
    return [entry.strip() for entry in schedule.split(",")]
