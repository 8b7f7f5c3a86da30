"""The block device that a path lies on. See: proc_pid_mountinfo(5), sysfs(5)."""

from __future__ import annotations

import os
import stat

from pylxc.kernel import procfs


def disk_of(path: str) -> str:
    """Return the numbers ("254:0") of the disk below a path, or of the disk that a block device is or is a part of.

    Raises:
        OSError: the path cannot be looked at.
        LookupError: it lies on no block device, or on more than one; the text says so.
    """
    status = os.stat(path)
    if stat.S_ISBLK(status.st_mode):
        return _whole(status.st_rdev)
    mount = procfs.mount_of(path)
    try:
        source = os.stat(mount.source)
    except OSError:
        source = None
    if source is not None and stat.S_ISBLK(source.st_mode):
        if mount.fstype == "btrfs" and (count := _btrfs_devices(source.st_rdev)) > 1:
            raise LookupError(f"{path} lies on a btrfs file system of {count} devices")
        return _whole(source.st_rdev)
    if os.major(status.st_dev):
        return _whole(status.st_dev)
    raise LookupError(f"{path} lies on {mount.fstype}, which is on no block device")


def _whole(device: int) -> str:
    """Return the numbers of the disk of a device, which may be one of its partitions: these have no limits."""
    numbers = f"{os.major(device)}:{os.minor(device)}"
    directory = os.path.realpath(f"/sys/dev/block/{numbers}")
    if not os.path.exists(f"{directory}/partition"):
        return numbers
    with open(f"{os.path.dirname(directory)}/dev") as file:
        return file.read().strip()


def _btrfs_devices(device: int) -> int:
    """Return how many devices the btrfs file system has that one belongs to."""
    name = os.path.basename(os.path.realpath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))
    for uuid in os.listdir("/sys/fs/btrfs"):
        try:
            devices = os.listdir(f"/sys/fs/btrfs/{uuid}/devices")
        except OSError:  # "features" is one of them
            continue
        if name in devices:
            return len(devices)
    return 1
