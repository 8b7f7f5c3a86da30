"""Archives of trees: tar and a compressor on all cores, as one stream that nothing waits for on a disk."""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from pylxc.errors import Internal
from pylxc.kernel import command

_COMPRESSORS: dict[str, tuple[tuple[str, ...], ...]] = {
    "none": (),
    "bzip2": (("lbzip2", "-c", "-n", "{cpus}"), ("bzip2", "-c")),
    "gzip": (("pigz", "-c", "-n"), ("gzip", "-c", "-n")),
    "lzma": (("xz", "-c", "--format=lzma"),),
    "xz": (("xz", "-c", "-T0"),),
    "zstd": (("zstd", "-c", "-q", "-T0"),),
}
"""What makes each format, the fastest first: the first that is installed is taken."""

_TAR = (
    "tar",
    "--create",
    "--format=posix",
    "--pax-option=delete=atime,delete=ctime",
    "--sparse",
    "--numeric-owner",
    "--no-unquote",
    "--xattrs",
    "--xattrs-include=*",
    "--acls",
    "--warning=no-file-ignored",
    "--file=-",
)
_CHUNK = 1 << 20
_PAUSE_MS = 500
_CHANGED = 1
"""tar's status when a file changed while it was read."""


def write_tar(
    members: Sequence[str], compression: str, write: Callable[[bytes], object], *, on_progress: Callable[[int], object]
) -> None:
    """Write a tar archive to `write`, a MiB at a time.

    Owners are the numbers on the disk. Extended attributes, ACLs, hard links and holes are kept; sockets are left out,
    as the format has none.

    Args:
        members: tar's words: names of files and directories, `--directory=DIR` for where the following names are, and
            `--transform=SED` for how they are called in the archive.
        compression: see `validate.compression`.
        write: takes the archive's bytes in order; what it raises ends the work.
        on_progress: called with the number of bytes after each `write`, and with 0 while nothing comes: compressors
            think for seconds. What it raises ends the work.

    Raises:
        Internal: a file cannot be read, or the programs fail.
        Unavailable: a program is missing.
    """
    compressor = _compressor(compression)
    with ExitStack() as stack:
        tar_out, tar_in = os.pipe()
        errors = os.memfd_create("tar-errors")
        stack.callback(os.close, errors)
        source = stack.enter_context(open(tar_out, "rb", buffering=0))
        try:
            tar = command.start([*_TAR, *members], stdout=tar_in, stderr=errors)
        finally:
            os.close(tar_in)
        stack.callback(_end, tar)
        processes = [tar]
        if compressor:
            packed_out, packed_in = os.pipe()
            try:
                packer = command.start(compressor, stdin=source.fileno(), stdout=packed_in, stderr=errors)
            finally:
                os.close(packed_in)
            source.close()
            stack.callback(_end, packer)
            processes.append(packer)
            source = stack.enter_context(open(packed_out, "rb", buffering=0))
        for chunk in _chunks(source.fileno()):
            if chunk:
                write(chunk)
            on_progress(len(chunk))
        statuses = [process.wait() for process in processes]
        if statuses[0] not in (0, _CHANGED) or any(statuses[1:]):
            os.lseek(errors, 0, os.SEEK_SET)
            lines = os.read(errors, 1 << 16).decode(errors="replace").splitlines()
            raise Internal(f"Failed making the archive: {lines[0][:200] if lines else statuses}")


def _chunks(fd: int) -> Iterator[bytes]:
    """Yield what comes from a pipe until its end, b"" when nothing has come for a while."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while True:
        if not poll.poll(_PAUSE_MS):
            yield b""
        elif chunk := os.read(fd, _CHUNK):
            yield chunk
        else:
            return


def _compressor(name: str) -> list[str]:
    name, _, level = name.partition(" ")
    choices = _COMPRESSORS[name]
    if not choices:
        return []
    for argv in choices:
        if shutil.which(argv[0]):
            cpus = str(len(os.sched_getaffinity(0)))
            return [word.replace("{cpus}", cpus) for word in argv] + ([level] if level else [])
    raise command.missing(choices[-1][0])


def _end(process: command.Running) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
