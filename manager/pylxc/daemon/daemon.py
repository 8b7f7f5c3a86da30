"""The daemon's life: start-up in order, signals, and the way down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from functools import partial

from pylxc.api.app import App
from pylxc.api.devlxd import GuestServer
from pylxc.daemon import access, refusal, systemd
from pylxc.daemon.assembly import Assembly
from pylxc.daemon.listeners import Listeners
from pylxc.db.models import Clock
from pylxc.errors import DatabaseUnusable
from pylxc.paths import Paths

log = logging.getLogger(__name__)

OPERATIONS_SECONDS = 20.0
"""How long SIGTERM waits for running tasks. What does not end by then is undone at the next start."""

GRACE_SECONDS = 0.25
"""How long those who have just connected have to say what they want, when a next daemon takes the others."""

ANSWERS_SECONDS = 1.0
"""How long requests that are being answered may take when everything else has stopped."""


class Daemon:
    """One daemon on one state directory.

    Args:
        paths: the directory, checked and locked.
        gid: the group that may use the socket.
        clock: returns the time, for scheduled work.
    """

    def __init__(self, paths: Paths, gid: int, clock: Clock) -> None:
        self._paths = paths
        self._clock = clock
        self._gid = gid
        self._stop_wanted = asyncio.Event()
        self._with_containers = False
        self._force = False
        self._again = False
        self._stopped = threading.Event()

    async def run(self) -> Callable[[], None] | None:
        """Start everything, serve until told to stop, stop everything.

        Returns:
            What begins anew, when that is wanted: it takes the socket along, which was not closed for a moment.

        Raises:
            PylxcError: it cannot start; nothing is left running but containers.
        """
        begin = time.monotonic()
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPWR, signal.SIGHUP):
            self._loop.add_signal_handler(number, self._signalled, number)
        passed, is_kept = systemd.listening_socket()
        self._others = systemd.passed_on()
        # Bound before everything is up: who connects meanwhile is served as soon as it is, instead of being refused.
        listener = passed or access.listen(self._paths.socket, self._gid)
        try:
            await self._serve(listener, begin, is_kept=is_kept)
            if self._again:
                return partial(systemd.begin_anew, listener.dup(), self._others, is_own=not is_kept)
        except DatabaseUnusable as error:
            refusal.answer(listener, str(error))
            raise
        finally:
            listener.close()
            if not (is_kept or self._again):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._paths.socket)
        return None

    async def _serve(self, listener: socket.socket, begin: float, *, is_kept: bool) -> None:
        """Do it; `is_kept` says that the socket goes on listening when this daemon has ended."""
        assembly = Assembly(self._paths, self._shutdown, self._clock)
        try:
            await asyncio.to_thread(assembly.start)
            limit = _raise_descriptor_limit()
            app = App(assembly.services)
            http = app.server()
            listeners = assembly.services.server.listeners = Listeners(http, assembly.services.server, self._others)
            await asyncio.to_thread(listeners.start)
            # Not create_unix_server: that of Python 3.13 removes the socket's file at the end, be it systemd's.
            server = await self._loop.create_server(http, sock=listener.dup(), backlog=access.BACKLOG)
            guests = GuestServer(assembly.services)
            assembly.services.guests.sockets.attach(guests)
            log.info("Ready after %.2f s", time.monotonic() - begin)
            systemd.notify("READY=1")
            assembly.autostart()
            assembly.begin_jobs()
            await self._stop_wanted.wait()

            log.info("Stopping")
            if self._again:
                systemd.notify_reloading()
            else:
                systemd.notify("STOPPING=1")
            assembly.services.server.listeners = None
            self._others = await asyncio.to_thread(listeners.keep) if self._again else {}
            await asyncio.to_thread(listeners.close)
            if self._again or (is_kept and not self._with_containers):
                server.close()  # Who connects from now on waits for the next daemon, instead of being refused.
                await asyncio.sleep(GRACE_SECONDS)
            app.draining = True
            await asyncio.to_thread(self._stop_services, assembly)
            guests.close()
            app.stopping.set()
            self._stopped.set()
            server.close()
            if not (self._again or is_kept):
                listener.close()
            http.pre_shutdown()
            await http.shutdown(ANSWERS_SECONDS)
            app.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        finally:
            await asyncio.to_thread(assembly.close)

    def _signalled(self, number: signal.Signals) -> None:
        log.info("Got %s", number.name)
        self._with_containers = self._with_containers or number == signal.SIGPWR
        if number != signal.SIGHUP:
            self._again = False
        elif not self._stop_wanted.is_set():
            self._again = True
        self._stop_wanted.set()

    def _shutdown(self, force: bool) -> None:
        """Stop with all containers; called by a request's thread, returns when the containers are stopped."""
        self._with_containers, self._force, self._again = True, force, False
        self._loop.call_soon_threadsafe(self._stop_wanted.set)
        self._stopped.wait()

    def _stop_services(self, assembly: Assembly) -> None:
        services = assembly.services
        assembly.end_jobs()
        seconds = OPERATIONS_SECONDS
        if self._with_containers:
            seconds = 0.0 if self._force else float(services.server.value("core.shutdown_timeout")) * 60
        if left := services.operations.close(seconds):
            log.warning("%d operations are still running and are cut off", left)
        if self._with_containers:
            services.instances.stop_all()
            services.networks.stop()
            services.storage.stop()


def _raise_descriptor_limit() -> tuple[int, int]:
    """Let this process have as many descriptors as it may: each container and each client takes some.

    Called when the spawner runs: what it starts keeps the limit that the daemon was given, which is returned.
    """
    given = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (given[1], given[1]))
    return given
