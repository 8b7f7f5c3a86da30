"""The daemon's handle on the processes of proxy devices: start, stop, find them again, replace those that die.

A proxy outlives the daemon. Its run directory says that there is to be one: `spec.json` what it does, `state.json` who
it is; while it lives it holds the lock on `lock`. It ends by itself with its container.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import threading
import time
from typing import Any

from pylxc.errors import Internal, PylxcError
from pylxc.kernel import namespaces, pidfd, procfs
from pylxc.paths import Paths
from pylxc.runtime import container, protocol
from pylxc.runtime.handle import Runtime
from pylxc.runtime.keeper import Keeper
from pylxc.runtime.spec import ProxySpec

log = logging.getLogger(__name__)

_START_SECONDS = 30.0
_STOP_SECONDS = 5.0
_SETTLE_SECONDS = 2.0
"""How long one that has only just been forked takes to say who it is."""


class Proxies:
    """The proxies of one state directory; thread-safe.

    Args:
        paths: where their run directories and logs are.
        runtime: forks them and knows their containers.
    """

    def __init__(self, paths: Paths, runtime: Runtime) -> None:
        self._paths = paths
        self._runtime = runtime
        self._lock = threading.Lock()
        self._keeper: Keeper | None = None

    def open(self) -> None:
        """Find those of the daemon before, clear away what has ended, start again what has died; after the runtime."""
        self._keeper = Keeper("proxy", self._restart)
        for key in _entries(f"{self._paths.run}/proxies"):
            for device in _entries(f"{self._paths.run}/proxies/{key}"):
                try:
                    self._adopt(key, device)
                except (PylxcError, OSError) as error:
                    log.warning("Failed taking over proxy %s of instance %s: %s", device, key, error)

    def close(self) -> None:
        """Let go of them; they run on."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.close()

    def start(self, key: str, device: str, spec: ProxySpec, pid: int) -> None:
        """Start a device's proxy; returns when it listens.

        Args:
            key: the instance's.
            device: the device's name.
            spec: what it does.
            pid: of the container's PID 1; its file system is whole, its init need not run.

        Raises:
            BadRequest: it cannot listen there; nothing is left.
        """
        directory = self._paths.proxy_run(key, device)
        with self._lock:
            self._remove(key, device)
            os.makedirs(directory, mode=0o700)
            protocol.write_file(f"{directory}/spec.json", spec.to_json())
            try:
                self._watch(key, device, self._spawn(key, device, pid))
            except BaseException:
                self._remove(key, device)
                raise

    def stop(self, key: str, device: str) -> None:
        """End a device's proxy, if there is one; its connections are cut."""
        with self._lock:
            self._remove(key, device)

    def _adopt(self, key: str, device: str) -> None:
        with self._lock:
            running = self._runtime.get(key)
            if running is None or not os.path.exists(f"{self._paths.proxy_run(key, device)}/spec.json"):
                self._remove(key, device)
                return
            fd = _find(self._paths.proxy_run(key, device))
            self._watch(key, device, self._spawn(key, device, running.pid) if fd is None else fd)

    def _restart(self, name: str) -> int | None:
        """Start the proxy again that the keeper has seen die, unless its container has ended."""
        key, _, device = name.partition("/")
        with self._lock:
            running = self._runtime.get(key)
            if running is None or not os.path.isdir(self._paths.proxy_run(key, device)):
                return None
            try:
                fd = self._spawn(key, device, running.pid)
            except (PylxcError, OSError):
                if not os.path.exists(f"/proc/{running.pid}"):  # the container ends just now
                    return None
                raise
        log.warning("Proxy %s of instance %s had died and was started again", device, key)
        return fd

    def _watch(self, key: str, device: str, fd: int) -> None:
        assert self._keeper is not None
        self._keeper.watch(f"{key}/{device}", fd)

    def _spawn(self, key: str, device: str, pid: int) -> int:
        """Fork the process of a run directory, wait until it listens, and return its pidfd."""
        directory = self._paths.proxy_run(key, device)
        spec = _read_json(f"{directory}/spec.json")
        os.makedirs(self._paths.instance_logs(key), mode=0o700, exist_ok=True)
        init_fd = self._runtime.open_init(key, pid)
        try:
            payload = {
                "directory": directory,
                "log": f"{self._paths.instance_logs(key)}/proxy.{device}.log",
                "spec": spec,
                "userns": namespaces.identity("user", pid) != namespaces.identity("user"),
            }
            child = self._runtime.spawn("proxy", payload, [init_fd])
        finally:
            os.close(init_fd)
        try:
            received = child.receive(_START_SECONDS)
            if received is None:
                raise Internal("The proxy's process has died")
            if "error" in received[0]:
                child.wait_ended(_STOP_SECONDS)
                raise protocol.rebuild_error(received[0])
            return child.open_pidfd()
        except BaseException:
            child.kill()
            raise
        finally:
            child.close()

    def _remove(self, key: str, device: str) -> None:
        if self._keeper is not None:
            self._keeper.watch(f"{key}/{device}", None)
        directory = self._paths.proxy_run(key, device)
        fd = _find(directory)
        if fd is not None:
            try:
                pidfd.send_signal(fd, signal.SIGTERM)
                if not pidfd.wait(fd, _STOP_SECONDS):
                    pidfd.send_signal(fd, signal.SIGKILL)
                    pidfd.wait(fd, _STOP_SECONDS)
            finally:
                os.close(fd)
        _remove_socket(directory)
        shutil.rmtree(directory, ignore_errors=True)
        with contextlib.suppress(OSError):  # others of the instance's are in it, or there was none
            os.rmdir(os.path.dirname(directory))


def _find(directory: str) -> int | None:
    """Return a pidfd of the proxy that holds a run directory, None when none lives."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while container.monitor_is_alive(directory):
        state = _read_json(f"{directory}/state.json") or {}
        with contextlib.suppress(OSError, KeyError):
            fd = os.pidfd_open(state["pid"])
            if procfs.start_time(state["pid"]) == state["start_time"]:
                return fd
            os.close(fd)
        if time.monotonic() > deadline:
            raise Internal(f"The process that holds {directory}/lock cannot be found")
        time.sleep(0.01)  # this is the path after a crash: a lock cannot be waited for with a time limit
    return None


def _remove_socket(directory: str) -> None:
    """Remove the file of the host that was the proxy's socket, if it is that still."""
    path, device, inode = (_read_json(f"{directory}/state.json") or {}).get("file", ("", 0, 0))
    with contextlib.suppress(OSError):
        # By descriptor: the path's owner could put another directory in its place between the look and the deed.
        parent = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            status = os.stat(os.path.basename(path), dir_fd=parent, follow_symlinks=False)
            if (status.st_dev, status.st_ino) == (device, inode):
                os.unlink(os.path.basename(path), dir_fd=parent)
        finally:
            os.close(parent)


def _entries(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def _read_json(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        return None
