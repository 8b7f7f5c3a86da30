"""From a fork of the spawner to a proxy that serves: sockets made, the namespace entered, every right given up.

Where it connects inside the container, it listens first and then enters the container for good; the host is out of its
reach from then on. Where it listens inside, a child enters, makes the sockets there and passes them out. Neither is in
the container's pid namespace: the guest can neither see nor trace nor kill it.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import socket

from pylxc.errors import BadRequest, Conflict
from pylxc.kernel import caps, namespaces, procfs
from pylxc.kernel import fds as descriptors
from pylxc.runtime import attach, protocol
from pylxc.runtime.proxy import sockets
from pylxc.runtime.proxy.datagrams import Datagrams
from pylxc.runtime.proxy.flows import Pipes
from pylxc.runtime.proxy.loop import Log, Loop
from pylxc.runtime.proxy.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_DESCRIPTORS = 1 << 18
_PER_CONNECTION = 2
_RESERVE = 512
"""Descriptors for all but connections' sockets; most of them for pipes of what is held up."""
_BIG_PIPES = 4
_NOBODY = 65534
_LISTENING = ("chown", "dac_override", "fowner", "net_bind_service", "setpcap")
_WATCH_SECONDS = 2.0
"""How often a socket in the guest's file system is looked at: what deletes it (a clean-up at boot) tells nobody."""


def main(payload: dict[str, Any], fds: list[int]) -> None:
    """Be a proxy until its container ends; the spawner's child of kind "proxy".

    Args:
        payload: `directory` (its run directory), `log` (a file), `spec` (a ProxySpec as JSON), `userns` (whether the
            container has a user namespace).
        fds: a socket that gets {} once it listens, or what is wrong; a pidfd of the container's PID 1.
    """
    caps.set_name("pylxc-proxy")
    caps.set_dumpable(False)
    spec, directory = payload["spec"], payload["directory"]
    result, init_fd = protocol.adopt(fds[0]), fds[1]
    _own_stdio(payload["log"])
    _lock(directory)
    most = _raise_limit()
    _record(directory, spec, [])
    helper: socket.socket | None = None
    if spec["bind"] == "host":
        listeners = sockets.listen(spec["listen"], spec)
        _record(directory, spec, listeners)
        pipes, log = Pipes(_BIG_PIPES), Log()
        _enter(init_fd, userns=payload["userns"])
    else:
        helper, listeners = _listen_inside(spec, init_fd, userns=payload["userns"])
        pipes, log = Pipes(_BIG_PIPES), Log()
    _give_up(spec, inside=spec["bind"] == "host")
    loop = Loop()
    _serve(loop, log, pipes, most, spec, listeners, helper)
    loop.watch(init_fd, select.EPOLLIN, lambda _: loop.end())
    protocol.tell(result, {})
    result.close()
    loop.run()


def _serve(
    loop: Loop,
    log: Log,
    pipes: Pipes,
    most: int,
    spec: dict[str, Any],
    listeners: list[socket.socket],
    helper: socket.socket | None,
) -> None:
    targets = sockets.targets(spec["connect"], max(len(listeners), 1))
    if spec["listen"]["kind"] == "udp":
        for listener, target in zip(listeners, targets, strict=True):
            Datagrams(loop, log, listener, target, most // len(listeners) or 1)
        return
    streams = Streams(loop, log, pipes, most, header=spec["proxy_protocol"])
    for listener, target in zip(listeners, targets, strict=False):  # one that lies inside may be yet to come
        streams.add(listener, target)
    if helper is not None:
        _renew(loop, streams, targets[0], helper)


def _renew(loop: Loop, streams: Streams, target: sockets.Target, helper: socket.socket) -> None:
    """Take the sockets that the child inside makes whenever the one before was lost."""

    def take(_events: int) -> None:
        received = protocol.receive(helper)
        if received is None:
            loop.end()  # it does not work any more; the daemon starts it again
            return
        for fd in received[1]:
            streams.replace(protocol.adopt(fd), target)

    loop.watch(helper.fileno(), select.EPOLLIN, take)


def _own_stdio(path: str) -> None:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    descriptors.replace_stdio(null)
    os.close(null)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.dup2(log, 2)
    os.close(log)


def _lock(directory: str) -> None:
    """Hold the run directory as long as this process lives."""
    fd = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Conflict("the proxy runs already") from None


def _record(directory: str, spec: dict[str, Any], listeners: list[socket.socket]) -> None:
    """Write down who this is and which file of the host is its socket."""
    state: dict[str, Any] = {"pid": os.getpid(), "start_time": procfs.start_time(os.getpid())}
    path = spec["listen"]["address"]
    if listeners and spec["listen"]["kind"] == "unix" and not path.startswith("@"):
        status = os.lstat(path)
        state["file"] = [path, status.st_dev, status.st_ino]
    protocol.write_file(f"{directory}/state.json", state)


def _raise_limit() -> int:
    """Let this process have many descriptors; return how many connections may take."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = max(hard, _DESCRIPTORS)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    except (OSError, ValueError):  # beyond fs.nr_open, or not allowed in a container
        wanted = hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(1, (min(wanted, _DESCRIPTORS) - _RESERVE) // _PER_CONNECTION)


def _enter(init_fd: int, *, userns: bool) -> None:
    """Join the container's namespaces, all but that of pids, as its root."""
    flags = (
        namespaces.CLONE_NEWNS
        | namespaces.CLONE_NEWUTS
        | namespaces.CLONE_NEWIPC
        | namespaces.CLONE_NEWNET
        | namespaces.CLONE_NEWCGROUP
    )
    namespaces.setns(init_fd, flags | (namespaces.CLONE_NEWUSER if userns else 0))
    attach.forget_host()
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    caps.set_dumpable(False)  # changing ids has reset it
    os.chdir("/")


def _give_up(spec: dict[str, Any], *, inside: bool) -> None:
    """Become who connects, and keep no capability but the one that opens unix sockets to root.

    Args:
        spec: names the user and the group; without them it is root for unix sockets, which look at who connects, and
            nobody for all others.
        inside: in the container, whose ids they are.
    """
    by_path = spec["connect"]["kind"] == "unix"
    uid, gid = ((0 if by_path else _NOBODY) if spec[key] is None else spec[key] for key in ("user", "group"))
    kept = ("dac_override",) if by_path and uid == 0 else ()
    mask = sum(1 << caps.number(name) for name in kept)
    caps.drop_from_bounding({number for number, name in enumerate(caps.NAMES) if name not in kept})
    if not inside:
        os.setgroups([])
    try:
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError:
        if spec["user"] is not None or spec["group"] is not None:
            raise BadRequest(f"user {uid} or group {gid} is not among the ids of the instance") from None
    caps.set_current(mask, mask, 0)
    caps.set_no_new_privileges()
    caps.set_dumpable(False)


def _listen_inside(
    spec: dict[str, Any], init_fd: int, *, userns: bool
) -> tuple[socket.socket | None, list[socket.socket]]:
    """Have a child make the sockets in the container.

    Returns:
        A socket that more of them may come from, None where they stay, and the sockets.

    Raises:
        PylxcError: what the child says.
    """
    ours, theirs = protocol.pair()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _live_inside(spec, init_fd, theirs, parent, userns=userns)
    theirs.close()
    message = protocol.receive(ours)
    if message is None:
        raise BadRequest("the process that listens inside the instance has died")
    if "error" in message[0]:
        raise protocol.rebuild_error(message[0])
    found = message[1]
    while len(found) < message[0]["sockets"]:
        found += descriptors.receive(ours, 64, descriptors.MAX_FDS)[1]
    listeners = [protocol.adopt(fd) for fd in found]
    if spec["listen"]["kind"] == "unix" and not spec["listen"]["address"].startswith("@"):
        return ours, listeners
    ours.close()
    os.waitpid(pid, 0)
    return None, listeners


def _live_inside(spec: dict[str, Any], init_fd: int, peer: socket.socket, parent: int, *, userns: bool) -> NoReturn:
    """Make the sockets as the container's root and pass them out; stay for one that lies in a file."""
    status = 1
    try:
        _enter(init_fd, userns=userns)
        caps.drop(tuple(name for name in caps.NAMES if name not in _LISTENING))
        caps.set_parent_death_signal(signal.SIGKILL)
        descriptors.close_all_but([0, 1, 2, peer.fileno()])
        path = spec["listen"]["address"]
        if os.getppid() == parent:
            if spec["listen"]["kind"] == "unix" and not path.startswith("@"):
                _hold_file(spec, path, peer)
            made = sockets.listen(spec["listen"], spec, early=True)
            protocol.send(peer, {"sockets": len(made)})
            for first in range(0, len(made), descriptors.MAX_FDS):
                descriptors.send(peer, b"+", [sock.fileno() for sock in made[first : first + descriptors.MAX_FDS]])
        status = 0
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent tells it
        protocol.tell(peer, protocol.describe_error(error))
    finally:
        os._exit(status)


def _hold_file(spec: dict[str, Any], path: str, peer: socket.socket) -> NoReturn:
    """Make the socket again whenever its file has gone: as it boots, a guest mounts over directories and empties them.

    A directory that is not there yet is waited for.
    """
    poll = select.poll()
    poll.register(peer, select.POLLIN)
    mine: tuple[int, int] | None = None
    told = False
    while True:
        if mine is None or _identity(path) != mine:
            mine = None
            try:
                (sock,) = sockets.listen(spec["listen"], spec)
            except BadRequest as error:
                if not told and not isinstance(error.__cause__, FileNotFoundError):
                    raise
            else:
                mine = _identity(path)
                protocol.send(peer, {"sockets": 1}, [sock.fileno()])
                told = True
                sock.close()
            if not told:
                protocol.send(peer, {"sockets": 0})
                told = True
        if poll.poll(_WATCH_SECONDS * 1000):
            os._exit(0)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
