"""The host's own DHCP clients: found by what runs, ended on one interface, started on another with all their options.

Only processes in the daemon's network namespace count. Standard library only: `lan_watch` runs it without the daemon.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from dataclasses import dataclass

from pylxc.kernel import command, pidfd, procfs

_KNOWN = ("dhclient", "udhcpc", "dhcpcd")
_END_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A DHCP client of one interface (of the host's others too, when it was told several): how it is started."""

    program: str
    argv: tuple[str, ...]
    pid: int = 0


def names_interface(interface: str) -> re.Pattern[str]:
    """Return what finds an interface in a configuration or a path: `eth0` in dhclient.eth0.pid, not in eth0.5."""
    return re.compile(rf"(?<![\w-]){re.escape(interface)}(?![\w-]|\.\d)")


def in_this_namespace(comm: str) -> list[int]:
    """Return the processes of a name (the kernel's: 15 characters) that are in our network namespace."""
    ours = os.stat("/proc/self/ns/net").st_ino
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if _read(f"/proc/{entry}/comm").strip() == comm and os.stat(f"/proc/{entry}/ns/net").st_ino == ours:
                    found.append(int(entry))
    return found


def find(interface: str) -> list[Client]:
    """Return the DHCP clients that run on an interface: root's, as they are to be started again by root."""
    mentioned = names_interface(interface)
    found: dict[tuple[str, ...], Client] = {}
    for program in (*_KNOWN, "busybox"):
        for pid in in_this_namespace(program):
            with contextlib.suppress(OSError):
                client = _client(program, pid, mentioned, interface)
                if client is not None:
                    found.setdefault(client.argv, client)
    return list(found.values())


def _client(program: str, pid: int, mentioned: re.Pattern[str], interface: str) -> Client | None:
    argv = tuple(word for word in _read(f"/proc/{pid}/cmdline").split("\0") if word)
    if set(procfs.status(pid)["Uid"].split()) != {"0"} or not any(mentioned.search(word) for word in argv):
        return None
    if program == "dhcpcd":  # it writes over its command line; the one of an interface is asked for by its name
        return Client(program=program, argv=("dhcpcd", interface), pid=pid)
    name = next((os.path.basename(word) for word in argv[:2] if os.path.basename(word) in _KNOWN), "")
    executable = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")  # it has been upgraded since
    return Client(program=name, argv=(executable, *argv[1:]), pid=pid) if name else None


def moved(client: Client, old: str, new: str) -> Client:
    """Return a client as it is started on another interface; its lease file is copied, so that it asks for the same."""
    words = []
    pattern = names_interface(old)
    for word in client.argv[1:]:
        changed = pattern.sub(new, word)
        if changed != word and word.startswith("/") and os.path.isfile(word) and "lease" in word:
            with contextlib.suppress(OSError), open(changed, "w", encoding="utf-8") as file:
                file.write(pattern.sub(new, _read(word)))
        words.append(changed)
    return Client(program=client.program, argv=(client.argv[0], *words))


def end(client: Client, interface: str) -> None:
    """End a client without giving its lease back; one that has gone is no error.

    Args:
        client: from `find`.
        interface: the one it is to leave.
    """
    if client.program == "dhcpcd":
        command.run(["dhcpcd", "-x", interface], check=False, timeout=_END_SECONDS)
        return
    try:
        descriptor = pidfd.open_pid(client.pid)
    except ProcessLookupError:
        return
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            pidfd.send_signal(descriptor, number)
            if pidfd.wait(descriptor, _END_SECONDS):
                return
    finally:
        os.close(descriptor)


def start(client: Client) -> None:
    """Start a client; it goes on beside the daemon. Raises Unavailable: its program is gone."""
    with open(os.devnull, "wb") as nothing:
        command.start(client.argv, stdout=nothing.fileno(), stderr=nothing.fileno())


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
