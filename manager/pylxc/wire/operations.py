"""Operations: long work that a request has started. See: LXD doc rest-api, operations."""

from __future__ import annotations

from typing import Any, TypedDict

CREATED = 100
STARTED = 101
STOPPED = 102
RUNNING = 103
CANCELLING = 104
PENDING = 105
STARTING = 106
STOPPING = 107
ABORTING = 108
FREEZING = 109
FROZEN = 110
THAWED = 111
ERROR = 112
READY = 113
SUCCESS = 200
FAILURE = 400
CANCELLED = 401

STATUS_NAMES = {
    CREATED: "Operation created",
    STARTED: "Started",
    STOPPED: "Stopped",
    RUNNING: "Running",
    CANCELLING: "Cancelling",
    PENDING: "Pending",
    STARTING: "Starting",
    STOPPING: "Stopping",
    ABORTING: "Aborting",
    FREEZING: "Freezing",
    FROZEN: "Frozen",
    THAWED: "Thawed",
    ERROR: "Error",
    READY: "Ready",
    SUCCESS: "Success",
    FAILURE: "Failure",
    CANCELLED: "Cancelled",
}
"""The wire's status codes, for operations and instances alike, and their names."""

Operation = TypedDict(
    "Operation",
    {
        "id": str,
        "class": str,
        "description": str,
        "created_at": str,
        "updated_at": str,
        "status": str,
        "status_code": int,
        "resources": dict[str, list[str]],
        "metadata": dict[str, Any],
        "may_cancel": bool,
        "err": str,
        "location": str,
    },
)
"""An operation; `class` is task, websocket or token; status codes from 200 on are final."""
