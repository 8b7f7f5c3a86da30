"""A change of the host's own interface that is under way, on disk: whoever finds it can bring the host back.

It is there from before the first step until everything is settled. The daemon undoes what fails or takes too long;
the watchdog (`lan_watch`) does when the daemon is gone; the next daemon does when both are. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec

from pylxc.drivers.network import host_clients, host_files, lan_link, lan_state
from pylxc.drivers.network.host_clients import Client
from pylxc.drivers.network.lan_state import State
from pylxc.errors import PylxcError, Unavailable
from pylxc.kernel import command, procfs

log = logging.getLogger(__name__)

P = ParamSpec("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """What there is to be put back.

    Attributes:
        bridge: to be deleted.
        parent: the interface that gets `state`.
        was_up: whether it was up before it went into the bridge.
        state: addresses and routes.
        written: files of the host's configuration that pylxc wrote, see `host_files`.
        reload: commands after these are put back.
        clients: command lines of DHCP clients, as they run on the parent.
        boot: id of the boot that the kernel's part is of.
    """

    bridge: str
    parent: str
    was_up: bool
    state: State
    written: dict[str, str] = field(default_factory=dict)
    reload: tuple[tuple[str, ...], ...] = ()
    clients: tuple[Client, ...] = ()
    boot: str = ""


def write(path: str, journal: Journal) -> None:
    """Write a journal, on disk when this returns."""
    data = {
        "bridge": journal.bridge,
        "parent": journal.parent,
        "was_up": journal.was_up,
        "state": journal.state.to_json(),
        "written": journal.written,
        "reload": journal.reload,
        "clients": [[client.program, *client.argv] for client in journal.clients],
        "boot": procfs.boot_id(),
    }
    save(path, data)


def save(path: str, data: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all; it is on disk when this returns."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(data, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.new", path)
    _sync(os.path.dirname(path))


def load(path: str) -> dict[str, Any]:
    """Return what `save` wrote.

    Raises:
        FileNotFoundError: there is none.
        Unavailable: the file is damaged.
    """
    try:
        with open(path, encoding="utf-8") as file:
            data: dict[str, Any] = json.load(file)
    except ValueError as error:
        raise Unavailable(f"{path} is damaged") from error
    return data


def read(path: str) -> Journal | None:
    """Return the journal at `path`, None when there is none."""
    try:
        data = load(path)
    except FileNotFoundError:
        return None
    return Journal(
        bridge=data["bridge"],
        parent=data["parent"],
        was_up=data["was_up"],
        state=State.from_json(data["state"]),
        written=data["written"],
        reload=tuple(tuple(words) for words in data["reload"]),
        clients=tuple(Client(program=program, argv=tuple(argv)) for program, *argv in data["clients"]),
        boot=data["boot"],
    )


def keep(path: str) -> bool:
    """Settle: what was done stays. Return False when it has been undone meanwhile."""
    with _locked(path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        _sync(os.path.dirname(path))
        return True


def undo(path: str) -> bool:
    """Bring the host to what the journal says; return False when there is none. Safe to be repeated.

    What fails is logged and does not keep the rest from being put back.
    """
    if not os.path.exists(path):
        return False
    with _locked(path):
        journal = read(path)
        if journal is None:
            return False
        is_now = journal.boot == procfs.boot_id()
        if is_now:
            for client in host_clients.find(journal.bridge):
                _attempt(f"ending {client.program}", host_clients.end, client, journal.bridge)
            _give_back(journal)
        host_files.restore(journal.written, copies(path))
        if is_now:
            reload(journal.reload)
            _restart(journal.parent, journal.clients)
        os.unlink(path)
        _sync(os.path.dirname(path))
    return True


def copies(path: str) -> str:
    """Return the directory of the copies of the host's files, beside the journal at `path`."""
    return f"{os.path.dirname(path)}/host-before"


def reload(commands: Sequence[Sequence[str]]) -> None:
    """Have the host's daemons read their files; a failure is logged."""
    for words in commands:
        _attempt(f"running {' '.join(words)}", command.run, list(words))


def _give_back(journal: Journal) -> None:
    bridge = lan_link.links().get(journal.bridge)
    if bridge is not None and bridge.kind == "bridge":
        _attempt("deleting the bridge", lan_link.delete, journal.bridge)
    parent = lan_link.links().get(journal.parent)
    if parent is None:
        log.warning("Interface %s is gone, its addresses cannot be put back", journal.parent)
        return
    if parent.master:
        _attempt(f"releasing {parent.name}", lan_link.release, parent)
    _attempt(f"putting back {parent.name}", lan_state.put, journal.state, parent.index, parent.name)
    if not journal.was_up:
        _attempt(f"setting {parent.name} down", lan_link.set_down, parent)


def _restart(interface: str, clients: Sequence[Client]) -> None:
    running = {client.argv for client in host_clients.find(interface)}
    for client in clients:
        if client.argv not in running:
            _attempt(f"starting {client.program}", host_clients.start, client)


def _attempt(what: str, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    try:
        function(*args, **kwargs)
    except (OSError, PylxcError) as error:
        log.warning("Failed %s: %s", what, error)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
