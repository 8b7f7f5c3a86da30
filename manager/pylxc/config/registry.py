"""All tables together, for documentation and for GET /1.0/metadata/configuration."""

from __future__ import annotations

from typing import Any

from pylxc.config.device import DEVICES, NICS
from pylxc.config.instance import INSTANCE
from pylxc.config.key import Key, Table
from pylxc.config.network import NETWORKS
from pylxc.config.project import PROJECT
from pylxc.config.server import SERVER
from pylxc.config.storage import POOLS, VOLUME

TABLES: dict[str, Table] = {
    "instance": INSTANCE,
    "server": SERVER,
    "project": PROJECT,
    **{f"network-{kind}": table for kind, table in NETWORKS.items()},
    **{f"storage-{driver}": table for driver, table in POOLS.items()},
    "storage-volume": VOLUME,
    **{f"device-{kind}": table for kind, table in DEVICES.items()},
    **{f"device-nic-{kind}": table for kind, table in NICS.items()},
}

_REFUSED = "This version refuses it."
_NO_EFFECT = "Stored and given back; it has no effect in this version."


def metadata() -> dict[str, Any]:
    """Return the tables in the shape of GET /1.0/metadata/configuration.

    See: LXD 5.21 api extension metadata_configuration
    """
    return {
        "configs": {
            entity: {table.scope: {"keys": [{key.name: _describe(key)} for key in table.keys]}}
            for entity, table in TABLES.items()
        }
    }


def _describe(key: Key) -> dict[str, str]:
    described = {
        "type": key.type,
        "shortdesc": key.help,
        "longdesc": _REFUSED if key.refused else "" if key.acts else _NO_EFFECT,
        "defaultdesc": key.default or key.unset,
        "liveupdate": "yes" if key.live else "no",
        "condition": key.condition,
    }
    return {name: text for name, text in described.items() if text or name == "longdesc"}
