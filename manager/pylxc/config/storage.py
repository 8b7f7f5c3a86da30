"""Configuration keys of storage pools and volumes.

See: LXD 5.0 doc/storage.md
"""

from __future__ import annotations

from pylxc import validate as v
from pylxc.config.key import Key, Table

_USER = Key(name="user.*", type="string", live=True, help="Free for the user.")

_VOLUME_KEYS = (
    Key(name="block.filesystem", type="string", check=v.one_of("btrfs", "ext4", "xfs"), refused=True,
        help="File system of block-backed volumes."),
    Key(name="block.mount_options", type="string", refused=True, help="Mount options of block-backed volumes."),
    Key(name="security.shifted", type="bool", check=v.boolean, default="false",
        help="Whether instances with different id maps may share the volume; they always may."),
    Key(name="security.unmapped", type="bool", check=v.boolean, default="false",
        help="Whether instances see the volume's ids as the host does, instead of as their own."),
    Key(name="size", type="size", check=v.size, live=True, help="Most that the volume may take; 0 for no limit."),
    Key(name="snapshots.expiry", type="expiry", check=v.expiry, live=True, unset="never",
        help="When new snapshots expire."),
    Key(name="snapshots.pattern", type="template", default="snap%d", live=True,
        help="Name of snapshots that were given none."),
    Key(name="snapshots.schedule", type="schedule", check=v.schedule, live=True, help="When to take snapshots."),
)  # fmt: skip

VOLUME = Table(
    "storage volume",
    "Storage volumes",
    (
        *_VOLUME_KEYS,
        Key(name="volatile.*", type="string", acts=False, help="What LXD notes of a volume; accepted, and not kept."),
        _USER,
    ),
)  # fmt: skip

_POOL = (
    Key(name="source", type="string", help="Directory, block device or file system that the pool is made of."),
    Key(name="rsync.bwlimit", type="size", check=v.size, default="0", acts=False, live=True,
        help="Most bytes a second that rsync may send; 0 for no limit."),
    Key(name="rsync.compression", type="bool", check=v.boolean, default="true", acts=False, live=True,
        help="Whether rsync compresses when migrating."),
    Key(name="volatile.initial_source", type="string", help="The source that the pool was created with."),
    *(
        Key(name=f"volume.{key.name}", type=key.type, check=key.check, default=key.default, unset=key.unset,
            refused=key.refused, live=True, help=f"Default of new volumes: {key.help[0].lower()}{key.help[1:]}")
        for key in _VOLUME_KEYS
    ),
    _USER,
)  # fmt: skip

DIR_POOL = Table("storage pool", "Storage pools of driver dir", _POOL)

BTRFS_POOL = Table(
    "storage pool",
    "Storage pools of driver btrfs",
    (
        *_POOL,
        Key(name="size", type="size", check=v.size, unset="20% of free space, 5 to 30 GiB",
            live=True,
            help="Size of the loop file, where the pool is one; it can grow."),
        Key(name="btrfs.mount_options", type="string", default="user_subvol_rm_allowed", live=True,
            help="Mount options."),
    ),
)  # fmt: skip

POOLS = {"dir": DIR_POOL, "btrfs": BTRFS_POOL}
