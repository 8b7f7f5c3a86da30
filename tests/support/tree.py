"""A tree with everything that a Unix file system can hold, and a description of one that shows every difference."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from typing import Any

# linux/capability.h: VFS_CAP_REVISION_2 with the effective flag, cap_net_raw permitted.
_CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
# linux/posix_acl_xattr.h: version 2; user::rwx, user:1234:r--, group::r-x, mask::r-x, other::---.
_ACL_ENTRIES = (
    (0x01, 7, 0xFFFFFFFF),
    (0x02, 4, 1234),
    (0x04, 5, 0xFFFFFFFF),
    (0x10, 5, 0xFFFFFFFF),
    (0x20, 0, 0xFFFFFFFF),
)
_ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in _ACL_ENTRIES)


def build(root: str, *, files: int = 200) -> None:
    """Fill the existing directory `root`."""
    old = 1_000_000_000_123_456_789
    for directory, mode in (("bin", 0o755), ("tmp", 0o1777), ("private", 0o700), ("setgid", 0o2775), ("empty", 0o555)):
        os.mkdir(f"{root}/{directory}")
        os.chmod(f"{root}/{directory}", mode)
    os.mkdir(f"{root}/many")
    for number in range(files):
        _write(f"{root}/many/{number}", os.urandom(number % 7000))
    for name in ("-rf", "new\nline", "späce ünïcode", os.fsdecode(b"not-utf8-\xff"), "*"):
        _write(f"{root}/bin/{name}", name.encode(errors="surrogateescape"))
    _write(f"{root}/bin/setuid", b"x" * 5000)
    os.chown(f"{root}/bin/setuid", 1000, 100)
    os.chmod(f"{root}/bin/setuid", 0o4755)
    _write(f"{root}/bin/capable", b"y")
    os.setxattr(f"{root}/bin/capable", "security.capability", _CAPABILITY)
    _write(f"{root}/acl", b"z")
    os.setxattr(f"{root}/acl", "system.posix_acl_access", _ACL)
    os.setxattr(f"{root}/private", "system.posix_acl_default", _ACL)
    os.setxattr(f"{root}/private", "user.note", b"\0binary\xff")
    os.link(f"{root}/bin/setuid", f"{root}/private/hardlink")
    os.link(f"{root}/bin/setuid", f"{root}/empty/hardlink")
    with open(f"{root}/sparse", "wb") as file:
        file.seek(8 << 20)
        file.write(b"end")
        file.truncate(16 << 20)
    os.symlink("/etc/passwd", f"{root}/absolute")
    os.symlink("../../../../outside", f"{root}/bin/dangling")
    os.lchown(f"{root}/absolute", 70000, 70001)
    os.mknod(f"{root}/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(f"{root}/block", stat.S_IFBLK | 0o660, os.makedev(7, 99))
    os.mkfifo(f"{root}/fifo", 0o640)
    os.mknod(f"{root}/socket", stat.S_IFSOCK | 0o755)
    _write(f"{root}/unreadable", b"secret")
    os.chmod(f"{root}/unreadable", 0)
    for path in ("bin", "many/1", "sparse", "absolute", "fifo", "empty", ""):
        os.utime(f"{root}/{path}", ns=(old, old + len(path)), follow_symlinks=False)


def describe(root: str) -> dict[str, Any]:
    """Return what can be told of every entry of a tree, and of the root itself, but for inode numbers and ctime."""
    inodes: dict[int, list[str]] = {}
    found: dict[str, Any] = {}
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files, *([""] if directory == root else [])):
            path = f"{directory}/{name}".rstrip("/")
            relative = os.path.relpath(path, root)
            info = os.lstat(path)
            if not stat.S_ISDIR(info.st_mode):
                inodes.setdefault(info.st_ino, []).append(relative)
            found[relative] = {
                "mode": oct(info.st_mode),
                "owner": (info.st_uid, info.st_gid),
                "mtime": info.st_mtime_ns,
                "device": info.st_rdev,
                "xattrs": {
                    n: os.getxattr(path, n, follow_symlinks=False) for n in os.listxattr(path, follow_symlinks=False)
                },
                **_contents(path, info),
            }
    found["hard links"] = sorted(sorted(names) for names in inodes.values() if len(names) > 1)
    return found


def _contents(path: str, info: os.stat_result) -> dict[str, Any]:
    if stat.S_ISLNK(info.st_mode):
        return {"target": os.readlink(path)}
    if not stat.S_ISREG(info.st_mode):
        return {}
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": info.st_size, "sha256": digest, "has_holes": info.st_blocks * 512 < info.st_size // 2}


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
