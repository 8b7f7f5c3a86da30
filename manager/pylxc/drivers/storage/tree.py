"""Copy and delete directory trees whole, fast: by coreutils, which does per file what Python would take longer for.

Measured on a Debian tree of 259 MB in 11,950 entries (ext4, 2 CPUs): cp 0.57 s, rsync 0.90 s, tar to tar 1.1 s;
system calls are 95% of cp's time.
"""

from __future__ import annotations

import errno
import os
import time

from pylxc.drivers.storage.driver import PoolFull
from pylxc.errors import Internal, PylxcError
from pylxc.kernel import command

HOURS = 6 * 3600.0
_TRIES = 50
_PAUSE = 0.1

# The program dies with the daemon: nothing is to write into what the next daemon clears away.
_BOUND = ("setpriv", "--pdeathsig", "KILL", "--")


def copy_contents(source: str, target: str) -> None:
    """Copy everything in directory `source`, and its own attributes, to the existing directory `target`.

    Owners, modes, times, xattrs (ACLs, file capabilities), hard links, holes, symbolic links, device nodes and fifos
    are kept; data is shared with the source where the file system can (FICLONE).

    Raises:
        PoolFull: no space left; what was copied so far is there.
        Internal: it failed otherwise.
    """
    argv = [*_BOUND, "cp", "-a", "--reflink=auto", "--sparse=auto", "-T", "--", source, target]
    try:
        command.run(argv, timeout=HOURS)
    except command.CommandFailed as error:
        raise failure(error.stderr.splitlines()[0] if error.stderr else error.message, "copying the volume") from error


def synchronise(source: str, target: str, *options: str) -> None:
    """Make `target` what the directory `source` is, copying only files whose size or time differ.

    Args:
        source: the directory.
        target: an existing directory.
        options: of rsync: `--delete` for what is only in `target`; `--link-dest=DIR` takes unchanged files from there.

    Raises:
        PoolFull: no space left; what was copied so far is there.
        Internal: it failed otherwise.
    """
    # By default rsync takes two times of one second for equal, and a file of the same size for unchanged.
    argv = [
        *_BOUND,
        "rsync",
        "-aHAXS",
        "--numeric-ids",
        "--modify-window=-1",
        *options,
        "--",
        f"{source}/",
        f"{target}/",
    ]
    try:
        command.run(argv, timeout=HOURS)
    except command.CommandFailed as error:
        line = error.stderr.splitlines()[0] if error.stderr else error.message
        raise failure(line, "refreshing the volume") from error


def delete(path: str) -> None:
    """Delete a tree, or nothing when there is none; it does not cross into what is mounted in it.

    Raises:
        Internal: something is still there.
    """
    for left in reversed(range(_TRIES)):
        try:
            command.run([*_BOUND, "rm", "-rf", "--one-file-system", "--", path], timeout=HOURS)
        except command.CommandFailed as error:
            # Somebody whose daemon was killed still writes into it: what is gone does not come back.
            if left and os.strerror(errno.ENOTEMPTY) in error.stderr:
                time.sleep(_PAUSE)
                continue
            raise failure(error.message, "deleting the volume") from error
        return


def size(path: str) -> int:
    """Return the bytes that a tree takes on disk; a file with several names in it counts once.

    It may change meanwhile, whatever it is changed to: what goes does not count, and no link is followed.

    Raises:
        Internal: it cannot be read.
    """
    done = command.run([*_BOUND, "du", "--summarize", "--block-size=1", "--", path], timeout=HOURS, check=False)
    counted = done.stdout.partition(b"\t")[0]
    if not counted.isdigit():
        raise failure(done.stderr.decode(errors="replace").partition("\n")[0], "measuring the volume")
    return int(counted)


def failure(reason: str | OSError, doing: str) -> PylxcError:
    """Return the error for a change that failed; a full disk is named as such. `doing` is "copying the volume"."""
    number = reason.errno if isinstance(reason, OSError) else None
    text = reason.strerror or str(reason) if isinstance(reason, OSError) else reason
    for full in (errno.ENOSPC, errno.EDQUOT):
        if number == full or os.strerror(full) in text:
            return PoolFull(f"Failed {doing}: {os.strerror(full)}", hint="free some space in the pool")
    return Internal(f"Failed {doing}: {text}")
