"""Disks: the root disk, which is the instance's volume, custom volumes, directories or files of the host, and tmpfs."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from pylxc import validate
from pylxc.config.device import DISK
from pylxc.drivers.device.driver import Context, DeviceDriver, HostTools, RunConfig
from pylxc.errors import BadRequest, NotSupported
from pylxc.runtime.rootfs import MOUNT_WORDS
from pylxc.runtime.spec import Mount
from pylxc.units import parse_bytes

_IN_MEMORY = {"tmpfs:": "tmpfs", "tmpfs-overlay:": "overlay"}
"""Kinds of file systems by source."""
_TMPFS_OPTIONS = ("gid", "mode", "nr_blocks", "nr_inodes", "size", "uid")
_SPECIAL = ("ceph:", "cephfs:", "cloud-init:", *_IN_MEMORY)


class DiskDriver(DeviceDriver):
    """See `DeviceDriver`.

    The size of the root disk is set where its volume is; limits are the control group's matter, for all disks of an
    instance together.
    """

    live = frozenset({"limits.max", "limits.read", "limits.write", "size"})

    def optional_source(self, device: Mapping[str, str]) -> str:
        """See `DeviceDriver`."""
        source = device.get("source", "")
        is_hosts = bool(source) and not device.get("pool") and source not in _IN_MEMORY
        return source if is_hosts and not DISK.is_true(device, "required") else ""

    def presence(self, device: Mapping[str, str]) -> str:
        """See `DeviceDriver`."""
        source = self.optional_source(device)
        try:
            found = os.stat(source)
        except OSError:
            return ""
        return f"{found.st_dev}:{found.st_ino}"

    def validate(self, name: str, device: Mapping[str, str], *, in_profile: bool) -> None:
        """See `DeviceDriver`."""
        path, source = device.get("path", ""), device.get("source", "")
        if not path and device.get("pool") and source:
            raise BadRequest("Custom filesystem volumes require a path to be defined")
        if not path:
            raise BadRequest(f"Disk device {name!r} needs a path")
        if path == "/":
            _check_root(device, in_profile=in_profile)
            return
        if device.get("size") and source not in _IN_MEMORY:
            raise BadRequest("Only the root disk may have a size quota")
        if not source:
            raise BadRequest(f'Disk device {name!r} is missing the required "source" property')
        if ".." in path.split("/") or "\0" in path or not path.strip("/."):
            raise BadRequest(f"Invalid path {path!r}: one inside is needed, without '..'")
        _check_options(device)
        if device.get("pool"):
            _check_volume(device)
        elif source in _IN_MEMORY:
            _check_in_memory(device)
        elif source.startswith(_SPECIAL):
            raise NotSupported(f"Disk source {source!r} is not supported")
        else:
            validate.absolute_path(source)

    def start(self, context: Context, host: HostTools) -> RunConfig:
        """See `DeviceDriver`."""
        del host
        device = context.device
        if device["path"] == "/":
            return RunConfig()
        if device["source"] in _IN_MEMORY and not device.get("pool"):
            return RunConfig(mounts=_in_memory(device))
        volume = context.volume
        source = volume.path if volume else "" if device.get("pool") else device["source"]
        presence = self.presence(device)
        try:
            mode = os.stat(source).st_mode
        except OSError as error:
            if DISK.is_true(device, "required"):
                what = "Storage volume" if device.get("pool") else "Source path"
                raise BadRequest(
                    f"{what} {device['source']!r} of disk device {context.name!r} does not exist",
                    hint="set required=false to start without it",
                ) from error
            return RunConfig()
        if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
            kind = "block" if stat.S_ISBLK(mode) else "char"
            raise BadRequest(
                f"Source path {source!r} of disk device {context.name!r} is a device",
                hint=f"mount it and give the directory, or add it as unix-{kind}",
            )
        mount = Mount(
            source=source,
            target=_inside(device),
            options=("rbind" if DISK.is_true(device, "recursive") else "bind", *_options(device)),
            shift=volume.mapped if volume else DISK.is_true(device, "shift"),
            create="dir" if stat.S_ISDIR(mode) else "file",
            within="" if volume else context.within,
        )
        return RunConfig(mounts=(mount,), source=presence)

    def update(self, before: Context, after: Context, host: HostTools) -> None:
        """See `DeviceDriver`."""
        del host
        if after.device.get("source") == "tmpfs-overlay:" and before.device.get("size") != after.device.get("size"):
            raise BadRequest(
                f"The size of disk device {after.name!r} cannot be changed while the instance runs",
                hint="remove it and add it anew; what is in it is lost",
            )

    def adjusted(self, before: Mapping[str, str], after: Mapping[str, str]) -> Mount | None:
        """See `DeviceDriver`."""
        if after["path"] == "/" or before.get("size") == after.get("size"):
            return None
        size = after.get("size") or _DEFAULT_SIZE
        return Mount(source="tmpfs", target=_inside(after), fstype="tmpfs", options=(_size(size),))


_DEFAULT_SIZE = "50%"
"""The kernel's, of the host's memory."""


def _inside(device: Mapping[str, str]) -> str:
    return f"/{device['path'].lstrip('/')}"


def _in_memory(device: Mapping[str, str]) -> tuple[Mount, ...]:
    options = _options(device)
    if device.get("size"):
        options = (*options, _size(device["size"]))
    kind = _IN_MEMORY[device["source"]]
    return (Mount(source="tmpfs", target=_inside(device), fstype=kind, options=options, create="dir"),)


def _size(text: str) -> str:
    return f"size={text if text.endswith('%') else parse_bytes(text)}"


def _options(device: Mapping[str, str]) -> tuple[str, ...]:
    """Return mount(8)'s words for a disk; of two that contradict each other the first holds."""
    words = ["ro"] if DISK.is_true(device, "readonly") else []
    words += [device["propagation"]] if device.get("propagation") else []
    return (*words, *_raw_options(device))


def _raw_options(device: Mapping[str, str]) -> list[str]:
    return [word for word in device.get("raw.mount.options", "").split(",") if word]


def _check_root(device: Mapping[str, str], *, in_profile: bool) -> None:
    if device.get("source"):
        raise BadRequest('Root disk entry may not have a "source" property set')
    if not device.get("pool") and not in_profile:
        raise BadRequest('Root disk entry must have a "pool" property set')


def _check_options(device: Mapping[str, str]) -> None:
    in_memory = device["source"] in _IN_MEMORY and not device.get("pool")
    for word in _raw_options(device):
        if word not in MOUNT_WORDS and not (in_memory and word.partition("=")[0] in _TMPFS_OPTIONS):
            kind = "a file system in memory" if in_memory else "a mounted directory"
            raise BadRequest(f"Option {word!r} in raw.mount.options is none that {kind} takes")


def _check_in_memory(device: Mapping[str, str]) -> None:
    for key in ("limits.max", "limits.read", "limits.write", "propagation", "recursive", "shift"):
        if device.get(key):
            raise BadRequest(f"The {key!r} property cannot be used with {device['source']}")


def _check_volume(device: Mapping[str, str]) -> None:
    if os.path.isabs(device["source"]):
        raise BadRequest("Storage volumes cannot be specified as absolute paths")
    if device.get("shift"):
        raise BadRequest('The "shift" property cannot be used with custom storage volumes', hint="their ids are mapped")
    if DISK.is_true(device, "recursive"):
        raise BadRequest('The "recursive" property cannot be used with custom storage volumes')
