"""Run the host's programs; the only place of the package that does.

Failures become errors that a user can act on: a program that is missing is named with its Debian package.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Mapping, Sequence
from subprocess import CompletedProcess, Popen

from pylxc.errors import Internal, Unavailable

Running = Popen[bytes]
"""A program that `start` started."""

log = logging.getLogger(__name__)

PACKAGES = {
    "apparmor_parser": "apparmor",
    "btrfs": "btrfs-progs",
    "cp": "coreutils",
    "dnsmasq": "dnsmasq-base",
    "du": "coreutils",
    "ip": "iproute2",
    "lxcfs": "lxcfs",
    "mkfs.btrfs": "btrfs-progs",
    "mksquashfs": "squashfs-tools",
    "mmdebstrap": "mmdebstrap",
    "modprobe": "kmod",
    "rsync": "rsync",
    "tar": "tar",
    "unsquashfs": "squashfs-tools",
    "xz": "xz-utils",
    "zstd": "zstd",
}

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


class CommandFailed(Internal):
    """A program ended with a status other than 0, or was too slow (`returncode` None)."""

    def __init__(self, message: str, *, returncode: int | None, stderr: str) -> None:
        super().__init__(message)
        self.returncode = returncode
        self.stderr = stderr


def missing(program: str) -> Unavailable:
    """Return the error for a program that is not installed."""
    package = PACKAGES.get(os.path.basename(program), os.path.basename(program))
    return Unavailable(f"The program {program!r} is missing", hint=f"apt-get install {package}")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment that programs run with: a full PATH, the C locale, the proxy settings, and `extra`."""
    proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    return _ENVIRONMENT | proxies | dict(extra or {})


def run(
    argv: Sequence[str],
    *,
    timeout: float = 120,
    input: bytes | str | None = None,  # noqa: A002 (subprocess's own word)
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    check: bool = True,
    pass_fds: Sequence[int] = (),
) -> CompletedProcess[bytes]:
    """Run a program to its end and return what it wrote.

    Args:
        argv: program and arguments; no shell is involved.
        timeout: seconds until it is killed.
        input: what it reads; nothing by default.
        env: added to `environment()`.
        cwd: its working directory.
        check: raise when its status is not 0.
        pass_fds: descriptors it inherits.

    Raises:
        Unavailable: the program is missing.
        CommandFailed: it failed, the message has the last line of its standard error; or it took too long.
    """
    data = input.encode() if isinstance(input, str) else input
    try:
        done = subprocess.run(
            argv,
            input=b"" if data is None else data,
            capture_output=True,
            timeout=timeout,
            env=environment(env),
            cwd=cwd,
            check=False,
            pass_fds=pass_fds,
        )
    except FileNotFoundError:
        raise missing(argv[0]) from None
    except subprocess.TimeoutExpired as error:
        stderr = (error.stderr or b"").decode(errors="replace")
        raise CommandFailed(f"{argv[0]} took longer than {timeout:g} s", returncode=None, stderr=stderr) from None
    if check and done.returncode:
        stderr = done.stderr.decode(errors="replace").strip()
        log.debug("%s failed with status %d: %s", argv, done.returncode, stderr)
        line = stderr.splitlines()[-1] if stderr else f"status {done.returncode}"
        raise CommandFailed(f"{os.path.basename(argv[0])}: {line}", returncode=done.returncode, stderr=stderr)
    return done


def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | None = None,
    stderr: int | None = None,
    new_session: bool = True,
) -> Popen[bytes]:
    """Start a program that goes on running and return it; streams default to the caller's, input to nothing.

    Raises:
        Unavailable: the program is missing.
    """
    try:
        return Popen(
            argv,
            env=environment(env),
            pass_fds=pass_fds,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=new_session,
        )
    except FileNotFoundError:
        raise missing(argv[0]) from None
