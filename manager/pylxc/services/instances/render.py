"""Instances in the form that the wire has them."""

from __future__ import annotations

from typing import Any

from pylxc.services.instances.expand import Record
from pylxc.wire import operations as codes
from pylxc.wire.instances import Instance, InstanceFull, InstanceSnapshot
from pylxc.wire.times import NEVER_USED, timestamp

STATUS_CODES = {"Running": codes.RUNNING, "Stopped": codes.STOPPED, "Frozen": codes.FROZEN, "Error": codes.ERROR}


def render(record: Record, status: str) -> Instance:
    """Return an instance as GET answers it; `status` is Running, Stopped, Frozen or Error."""
    return {
        "architecture": record.architecture,
        "config": record.config,
        "devices": record.devices,
        "ephemeral": record.ephemeral,
        "profiles": list(record.profiles),
        "stateful": record.stateful,
        "description": record.description,
        "created_at": timestamp(record.created_at),
        "expanded_config": record.expanded_config,
        "expanded_devices": record.expanded_devices,
        "name": record.name,
        "status": status,
        "status_code": STATUS_CODES[status],
        "last_used_at": timestamp(record.last_used_at, NEVER_USED),
        "location": "none",
        "type": record.type,
        "project": record.project,
    }


def etag_fields(record: Record) -> tuple[Any, ...]:
    """Return what an instance's entity tag is made of."""
    return (record.architecture, record.config, record.devices, record.ephemeral, list(record.profiles))


def full(instance: Instance, state: Any, snapshots: list[InstanceSnapshot]) -> InstanceFull:
    """Return what recursion=2 has of an instance."""
    return {**instance, "backups": [], "state": state, "snapshots": snapshots}
