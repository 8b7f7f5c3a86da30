"""Character and block devices of the host, found by their path or named by their numbers."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping

from pylxc.config.device import UNIX_BLOCK, UNIX_CHAR
from pylxc.config.key import Table
from pylxc.drivers.device.driver import Context, DeviceDriver, HostTools, RunConfig
from pylxc.errors import BadRequest
from pylxc.runtime.spec import DeviceNode


class _UnixDriver(DeviceDriver):
    """See `DeviceDriver`. The container gets a node of its own, whose owner and mode are not those of the host's."""

    kind: str
    kind_name: str
    table: Table
    is_kind: Callable[[int], bool]

    def validate(self, name: str, device: Mapping[str, str], *, in_profile: bool) -> None:
        """See `DeviceDriver`."""
        del in_profile
        if not device.get("source") and not device.get("path"):
            raise BadRequest(f'Unix device {name!r} is missing the required "source" or "path" property')
        if bool(device.get("major")) != bool(device.get("minor")):
            raise BadRequest(f"Unix device {name!r} needs both major and minor, or none of them")
        if ".." in _inside(device).split("/"):
            raise BadRequest(f"Invalid path {_inside(device)!r}: it must not contain '..'")

    def optional_source(self, device: Mapping[str, str]) -> str:
        """See `DeviceDriver`."""
        required = device.get("major") or self.table.is_true(device, "required")
        return "" if required else device.get("source") or device["path"]

    def presence(self, device: Mapping[str, str]) -> str:
        """See `DeviceDriver`."""
        source = self.optional_source(device)
        numbers = self._numbers(source) if source else None
        return "{}:{}".format(*numbers) if numbers else ""

    def start(self, context: Context, host: HostTools) -> RunConfig:
        """See `DeviceDriver`."""
        del host
        device = context.device
        source = device.get("source") or device["path"]
        if device.get("major"):
            numbers = int(device["major"]), int(device["minor"])
        elif (found := self._numbers(source)) is not None:
            numbers = found
        elif self.optional_source(device):
            return RunConfig()
        elif os.path.lexists(source):
            raise BadRequest(f"Source {source!r} of device {context.name!r} is not a {self.kind_name} device")
        else:
            raise BadRequest(
                f"Source {source!r} of device {context.name!r} does not exist",
                hint="set required=false to start without it, or its major and minor to have it made",
            )
        node = DeviceNode(
            source=source,
            path=_inside(device),
            kind=self.kind,
            major=numbers[0],
            minor=numbers[1],
            mode=int(self.table.value(device, "mode"), 8),
            uid=int(self.table.value(device, "uid")),
            gid=int(self.table.value(device, "gid")),
        )
        return RunConfig(nodes=(node,), source="{}:{}".format(*numbers) if self.optional_source(device) else "")

    def _numbers(self, source: str) -> tuple[int, int] | None:
        try:
            found = os.stat(source)
        except OSError:
            return None
        return (os.major(found.st_rdev), os.minor(found.st_rdev)) if self.is_kind(found.st_mode) else None


class UnixCharDriver(_UnixDriver):
    """Devices of type unix-char."""

    kind, kind_name, table = "char", "character", UNIX_CHAR
    is_kind = staticmethod(stat.S_ISCHR)


class UnixBlockDriver(_UnixDriver):
    """Devices of type unix-block."""

    kind, kind_name, table = "block", "block", UNIX_BLOCK
    is_kind = staticmethod(stat.S_ISBLK)


def _inside(device: Mapping[str, str]) -> str:
    return device.get("path") or device["source"]
