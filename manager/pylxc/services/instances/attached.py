"""What devices a container has, which may not be what its configuration says; kept while it runs.

The database has it, and a file beside its monitor's own: for a database that was lost, or is of another day.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from pylxc.db.models import Config, Devices
from pylxc.drivers.device.driver import Context, RunConfig
from pylxc.runtime import rootfs
from pylxc.runtime.spec import DeviceNode
from pylxc.services.instances.devices import Prepared

Attachments = Mapping[str, "Attached"]
"""By the devices' names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """A device that a container was given.

    Attributes:
        device: its configuration.
        volatile: the volatile keys of the device at that time.
        mounts: paths inside of what was mounted for it.
        nodes: device nodes that it may use.
        source: what was at its optional source (`DeviceDriver.presence`).
        settled: False while it is being given or taken away: any part of it may be there.
    """

    device: dict[str, str]
    volatile: dict[str, str]
    mounts: tuple[str, ...] = ()
    nodes: tuple[DeviceNode, ...] = ()
    source: str = ""
    settled: bool = True

    @classmethod
    def of(cls, context: Context, run: RunConfig) -> Self:
        """Return the record of a device that adds `run`."""
        prefix = f"volatile.{context.name}."
        return cls(
            device=dict(context.device),
            volatile={key: value for key, value in context.config.items() if key.startswith(prefix)},
            mounts=tuple(target for mount in run.mounts for target in rootfs.targets(mount)),
            nodes=run.nodes,
            source=run.source,
        )

    @property
    def targets(self) -> tuple[str, ...]:
        """What is to be unmounted, the last that was mounted first."""
        return (*reversed([node.path for node in self.nodes]), *reversed(self.mounts))


_FILE = "devices.json"


def save(run_dir: str, attached: Attachments) -> None:
    """Write down in a running container's directory what it has."""
    with open(f"{run_dir}/{_FILE}.new", "w", encoding="utf-8") as file:
        json.dump(to_json(attached), file)
    os.rename(f"{run_dir}/{_FILE}.new", f"{run_dir}/{_FILE}")


def saved(run_dir: str) -> dict[str, Attached] | None:
    """Return what `save` wrote last, None when it did not."""
    try:
        with open(f"{run_dir}/{_FILE}", encoding="utf-8") as file:
            return from_json(json.load(file))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def of(prepared: Prepared) -> dict[str, Attached]:
    """Return the record of devices that a container is about to get."""
    return {context.name: Attached.of(context, run) for context, run in prepared.devices()}


def to_json(attached: Attachments) -> dict[str, Any]:
    """Return data that `from_json` reads."""
    return {name: asdict(each) for name, each in attached.items()}


def from_json(data: Mapping[str, Any]) -> dict[str, Attached]:
    """Read what `to_json` wrote."""
    return {name: _read(each) for name, each in data.items()}


def _read(data: Mapping[str, Any]) -> Attached:
    nodes = tuple(DeviceNode(**node) for node in data["nodes"])
    return Attached(**{**data, "mounts": tuple(data["mounts"]), "nodes": nodes})


def configured(attached: Attachments) -> Devices:
    """Return the devices' configurations."""
    return {name: each.device for name, each in attached.items()}


def volatile(attached: Iterable[Attached]) -> Config:
    """Return the volatile keys of all of them."""
    return {key: value for each in attached for key, value in each.volatile.items()}


def nodes_of(attached: Iterable[Attached]) -> list[DeviceNode]:
    """Return all device nodes."""
    return [node for each in attached for node in each.nodes]
