"""Where things lie below the directory that PYLXC_DIR (or LXD_DIR) names. `os.path` only: the command imports this."""

from __future__ import annotations

import os

DEFAULT_DIR = "/var/lib/pylxc"


def var_dir() -> str:
    """Return the state directory: $PYLXC_DIR, else $LXD_DIR, else /var/lib/pylxc."""
    return os.path.abspath(os.environ.get("PYLXC_DIR") or os.environ.get("LXD_DIR") or DEFAULT_DIR)


def storage_name(project: str, name: str) -> str:
    """Return an instance's name on disk, in /run and in the cgroup tree: LXD's `<project>_<name>`."""
    return name if project == "default" else f"{project}_{name}"


def split_key(key: str) -> tuple[str, str]:
    """Return (project, name) of a key that `storage_name` made; neither holds an underscore."""
    project, _, name = key.rpartition("_")
    return project or "default", name


class Paths:
    """The layout of one state directory; attributes are absolute paths."""

    def __init__(self, root: str | None = None) -> None:
        self.root = root or var_dir()
        self.socket = f"{self.root}/unix.socket"
        self.pid_file = f"{self.root}/pylxcd.pid"
        self.database = f"{self.root}/database/pylxc.db"
        self.images = f"{self.root}/images"
        self.disks = f"{self.root}/disks"
        self.storage_pools = f"{self.root}/storage-pools"
        self.backups = f"{self.root}/backups"
        self.networks = f"{self.root}/networks"
        self.logs = f"{self.root}/logs"
        self.cache = f"{self.root}/cache"
        self.run = f"{self.root}/run"
        self.devlxd = f"{self.root}/run/devlxd"

    def pool(self, name: str) -> str:
        """Directory of a storage pool."""
        return f"{self.storage_pools}/{name}"

    def disk(self, name: str) -> str:
        """Loop file of a storage pool that has one."""
        return f"{self.disks}/{name}.img"

    def network(self, name: str) -> str:
        """Directory of a managed network: dnsmasq's files."""
        return f"{self.networks}/{name}"

    def instance_logs(self, key: str) -> str:
        """Directory of an instance's logs; `key` is from `storage_name`."""
        return f"{self.logs}/{key}"

    def instance_run(self, key: str) -> str:
        """Run-time directory of an instance; `key` is from `storage_name`."""
        return f"{self.run}/instances/{key}"

    def proxy_run(self, key: str, device: str) -> str:
        """Run-time directory of an instance's proxy device."""
        return f"{self.run}/proxies/{key}/{device}"

    def instance_devlxd(self, key: str) -> str:
        """Directory that a running instance sees as /dev/lxd; `key` is from `storage_name`."""
        return f"{self.devlxd}/{key}"
