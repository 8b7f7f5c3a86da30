"""Instances in the form that the wire has them."""

from __future__ import annotations

from typing import Any, cast

from pylxc.services.instances.expand import Record
from pylxc.wire import operations as codes
from pylxc.wire.instances import Instance
from pylxc.wire.times import NEVER_USED, timestamp

STATUS_CODES = {"Running": codes.RUNNING, "Stopped": codes.STOPPED, "Frozen": codes.FROZEN, "Error": codes.ERROR}


def render(record: Record, status: str) -> Instance:
    """Return an instance as GET answers it; `status` is Running, Stopped, Frozen or Error."""
    return {
        "name": record.name,
        "description": record.description,
        "status": status,
        "status_code": STATUS_CODES[status],
        "architecture": record.architecture,
        "config": record.config,
        "devices": record.devices,
        "ephemeral": record.ephemeral,
        "profiles": list(record.profiles),
        "stateful": record.stateful,
        "created_at": timestamp(record.created_at),
        "last_used_at": timestamp(record.last_used_at, NEVER_USED),
        "expanded_config": record.expanded_config,
        "expanded_devices": record.expanded_devices,
        "location": "none",
        "type": record.type,
        "project": record.project,
    }


def etag_fields(record: Record) -> tuple[Any, ...]:
    """Return what an instance's entity tag is made of."""
    return (record.architecture, record.config, record.devices, record.ephemeral, list(record.profiles))


def full(instance: Instance, state: Any) -> dict[str, Any]:
    """Return what recursion=2 has of an instance."""
    return {**cast(dict[str, Any], instance), "state": state, "snapshots": [], "backups": []}
