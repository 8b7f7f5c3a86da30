"""Instances as services see them, without a database."""

from __future__ import annotations

from typing import Any

from pylxc.db.models import Config, Devices, now
from pylxc.services.instances.expand import Record


def record(name: str = "c1", config: Config | None = None, devices: Devices | None = None, **more: Any) -> Record:
    """Return a stopped instance without profiles; `more` are fields of its record that shall be other."""
    fields: dict[str, Any] = {
        "id": 1,
        "project": "default",
        "name": name,
        "type": "container",
        "architecture": "x86_64",
        "description": "",
        "config": config or {},
        "devices": devices or {},
        "profiles": (),
        "ephemeral": False,
        "stateful": False,
        "created_at": now(),
        "last_used_at": None,
        "expanded_config": config or {},
        "expanded_devices": devices or {},
    }
    return Record(**{**fields, **more})
