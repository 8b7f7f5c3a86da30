"""Warnings. See: LXD doc rest-api, warnings."""

from __future__ import annotations

from typing import TypedDict


class Warning(TypedDict):  # noqa: A001 - LXD's name of it
    """A warning; `status` is new, acknowledged or resolved, `severity` low, moderate or high."""

    uuid: str
    location: str
    project: str
    type: str
    count: int
    first_seen_at: str
    last_seen_at: str
    last_message: str
    severity: str
    status: str
    entity_url: str


class WarningPut(TypedDict, total=False):
    """What can be changed of a warning."""

    status: str
