"""Files of the host's own configuration: written with a copy kept, and put back unless somebody has changed them since.

Standard library only: `lan_watch` runs it without the daemon.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Mapping

log = logging.getLogger(__name__)

Written = dict[str, str]
"""Hashes of what was written, by path: with the copies that is all that `restore` needs."""


def hashes(texts: Mapping[str, str]) -> Written:
    """Return what `restore` will want to know of files that are about to be written."""
    return {path: _hash(text.encode()) for path, text in texts.items()}


def write(texts: Mapping[str, str], copies: str) -> None:
    """Write files, each whole or not at all, after copying what is there.

    Args:
        texts: contents by absolute path.
        copies: the directory for copies of what was there, in the same places below it.

    Raises:
        OSError: one cannot be written; `restore` puts the others back.
    """
    shutil.rmtree(copies, ignore_errors=True)
    os.makedirs(copies, mode=0o700)
    for path in texts:
        if os.path.exists(path):
            os.makedirs(os.path.dirname(copies + path), mode=0o700, exist_ok=True)
            shutil.copy2(path, copies + path)
    for path, text in texts.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        mode = os.stat(path).st_mode & 0o7777 if os.path.exists(path) else 0o644
        with open(f"{path}.pylxc-new", "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{path}.pylxc-new", path)


def restore(written: Written, copies: str) -> None:
    """Put files back as they were before `write`; what was changed since is left alone, with a line in the log."""
    if not os.path.isdir(copies):
        return  # it did not come to that
    for path, was in written.items():
        try:
            with open(path, "rb") as file:
                now = _hash(file.read())
        except FileNotFoundError:
            now = ""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}.pylxc-new")
        before = copies + path
        if now != was:
            if not os.path.exists(before) or now != _hash_of(before):
                log.warning("%s was changed since pylxc wrote it, and is left as it is; before: %s", path, before)
            continue
        if os.path.exists(before):
            shutil.copy2(before, f"{path}.pylxc-new")
            os.replace(f"{path}.pylxc-new", path)
        else:
            os.unlink(path)
            with contextlib.suppress(OSError):  # a drop-in's directory, if it was made for it
                os.rmdir(os.path.dirname(path))


def _hash_of(path: str) -> str:
    with open(path, "rb") as file:
        return _hash(file.read())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
