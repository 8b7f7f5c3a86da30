"""Disks: the root disk, which is the instance's volume, custom volumes, and directories or files of the host."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pylxc import validate
from pylxc.config.device import DISK
from pylxc.drivers.device.driver import Context, DeviceDriver, HostTools, RunConfig
from pylxc.errors import BadRequest, NotSupported
from pylxc.runtime.spec import Mount

_SPECIAL = ("ceph:", "cephfs:", "cloud-init:", "tmpfs-overlay:", "tmpfs:")


class DiskDriver(DeviceDriver):
    """See `DeviceDriver`.

    The size of the root disk is set where its volume is; limits are the control group's matter, for all disks of an
    instance together.
    """

    live = frozenset({"limits.max", "limits.read", "limits.write", "size"})

    def validate(self, name: str, device: Mapping[str, str], *, in_profile: bool) -> None:
        """See `DeviceDriver`."""
        path, source = device.get("path", ""), device.get("source", "")
        if not path and device.get("pool") and source:
            raise BadRequest("Custom filesystem volumes require a path to be defined")
        if not path:
            raise BadRequest(f"Disk device {name!r} needs a path")
        if path == "/":
            if source:
                raise BadRequest('Root disk entry may not have a "source" property set')
            if not device.get("pool") and not in_profile:
                raise BadRequest('Root disk entry must have a "pool" property set')
            return
        if device.get("size"):
            raise BadRequest("Only the root disk may have a size quota")
        if not source:
            raise BadRequest(f'Disk device {name!r} is missing the required "source" property')
        if ".." in path.split("/"):
            raise BadRequest(f"Invalid path {path!r}: it must not contain '..'")
        if device.get("pool"):
            _check_volume(device)
            return
        if source.startswith(_SPECIAL):
            raise NotSupported(f"Disk source {source!r} is not supported")
        validate.absolute_path(source)

    def start(self, context: Context, host: HostTools) -> RunConfig:
        """See `DeviceDriver`."""
        del host
        device = context.device
        if device["path"] == "/":
            return RunConfig()
        volume = context.volume
        source = volume.path if volume else "" if device.get("pool") else device["source"]
        if not os.path.exists(source):
            if DISK.is_true(device, "required"):
                what = "Storage volume" if device.get("pool") else "Source path"
                raise BadRequest(
                    f"{what} {device['source']!r} of disk device {context.name!r} does not exist",
                    hint="set required=false to start without it",
                )
            return RunConfig()
        options = ["rbind" if DISK.is_true(device, "recursive") else "bind"]
        if DISK.is_true(device, "readonly"):
            options.append("ro")
        options += [word for word in device.get("raw.mount.options", "").split(",") if word]
        mount = Mount(
            source=source,
            target=f"/{device['path'].lstrip('/')}",
            options=tuple(options),
            shift=volume.mapped if volume else DISK.is_true(device, "shift"),
            create="dir" if os.path.isdir(source) else "file",
        )
        return RunConfig(mounts=(mount,))


def _check_volume(device: Mapping[str, str]) -> None:
    if os.path.isabs(device["source"]):
        raise BadRequest("Storage volumes cannot be specified as absolute paths")
    if device.get("shift"):
        raise BadRequest('The "shift" property cannot be used with custom storage volumes', hint="their ids are mapped")
    if DISK.is_true(device, "recursive"):
        raise BadRequest('The "recursive" property cannot be used with custom storage volumes')
