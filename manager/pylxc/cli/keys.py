"""The user's own certificate, by which servers on the network know them: made when it is first needed."""

from __future__ import annotations

import os

from pylxc.cli import settings
from pylxc.errors import PylxcError


def key_pair() -> tuple[str, str]:
    """Return the files of the user's certificate and key; make them when there are none.

    Raises:
        PylxcError: they cannot be written.
    """
    directory = settings.user_dir()
    pair = f"{directory}/client.crt", f"{directory}/client.key"
    if not all(os.path.exists(path) for path in pair):
        try:
            _make(directory, *pair)
        except OSError as error:
            raise PylxcError(f"{error.filename or directory} cannot be written: {error.strerror}") from error
    return pair


def _make(directory: str, certificate_file: str, key_file: str) -> None:
    import fcntl
    import getpass
    import socket

    from pylxc import selfsigned

    os.makedirs(directory, mode=0o700, exist_ok=True)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two commands may want them at once
        if not (os.path.exists(certificate_file) and os.path.exists(key_file)):
            certificate, key = selfsigned.make(f"{getpass.getuser()}@{socket.gethostname()}", server=False)
            selfsigned.write_pair(certificate_file, certificate, key_file, key)
    finally:
        os.close(lock)
