"""Events, as the websocket sends them. See: LXD doc events."""

from __future__ import annotations

from typing import Any, TypedDict


class Requestor(TypedDict):
    """Who asked: `protocol` is unix or tls."""

    username: str
    protocol: str
    address: str


class Lifecycle(TypedDict, total=False):
    """What was done to what; `source` is a URL."""

    action: str
    source: str
    context: dict[str, Any]
    requestor: Requestor


class Event(TypedDict, total=False):
    """The frame: `type` is lifecycle, logging or operation; `project` only where it has one."""

    type: str
    timestamp: str
    metadata: dict[str, Any]
    location: str
    project: str
