"""A directory of a container that is written to in memory only: an overlay on it, whose upper layer is a tmpfs."""

from __future__ import annotations

import errno
import os
import stat

from pylxc.kernel import mount
from pylxc.kernel.fds import close

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_LOWER, _UPPER, _WORK = "lower", "upper", "work"
_OPTIONS = (("lowerdir", _LOWER), ("upperdir", _UPPER), ("workdir", _WORK), ("userxattr", ""))


def put(target_fd: int, path: str, options: Sequence[tuple[str, str]], attributes: int) -> None:
    """Mount a tmpfs and then the overlay on what `target_fd` (may be O_PATH) is; all or nothing.

    For the container's own root, in its namespaces. The layers are named relative to the tmpfs, so nothing that the
    guest has anywhere is on the way to them.

    Args:
        target_fd: a directory.
        path: what an error names.
        options: of the tmpfs.
        attributes: `mount.ATTR_*` of the overlay.

    Raises:
        OSError: see mount(2); the kernel's tmpfs keeps no attributes of users.
    """
    if not stat.S_ISDIR(os.fstat(target_fd).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "an overlay needs a directory", path)
    lower = mount.open_tree("", dir_fd=target_fd)
    opened = [lower]
    try:
        memory = mount.new("tmpfs", (("mode", "0700"), *options))
        opened.append(memory)
        mount.attach(memory, target_fd)
        try:
            os.fchdir(memory)
            _make_layers(os.fstat(target_fd), lower)
            overlay = mount.new("overlay", _OPTIONS, attributes=attributes, source="tmpfs")
            opened.append(overlay)
            mount.attach(overlay, memory)
        except BaseException:
            mount.unmount(".")
            raise
        finally:
            os.chdir("/")
    finally:
        close(opened)


def _make_layers(found: os.stat_result, lower: int) -> None:
    for name in (_LOWER, _UPPER, _WORK):
        os.mkdir(name, 0o700)
    os.chown(_UPPER, found.st_uid, found.st_gid)
    os.chmod(_UPPER, stat.S_IMODE(found.st_mode))
    try:
        os.setxattr(_UPPER, "user.pylxc", b"1")
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise OSError(error.errno, "tmpfs-overlay: needs Linux 6.6 or newer") from error
        raise
    os.removexattr(_UPPER, "user.pylxc")
    mount.attach_at(lower, _LOWER)
