"""The daemon's side of the renderer: its process is there while templates are being rendered, and a minute longer."""

from __future__ import annotations

import importlib.util
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pylxc.errors import BadRequest, Internal
from pylxc.kernel import command
from pylxc.runtime import protocol
from pylxc.services.rendering.bounds import WALL_SECONDS

_IDLE_SECONDS = 60.0
_PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
# Isolated and without site: what the process needs is named, and nothing else of the host's is loaded.
_BOOT = (
    "import sys; sys.path += sys.argv[2:]; from pylxc.services.rendering.process import main; main(int(sys.argv[1]))"
)


class Renderer:
    """Renders templates; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: command.Running | None = None
        self._idle: threading.Timer | None = None
        self._wanted_until = 0.0

    def prepare(self) -> None:
        """Begin to load what rendering needs, for a `render` that is to come soon; does not wait."""
        with self._lock:
            self._ensure()

    def render(self, templates: Sequence[tuple[str, str, Mapping[str, Any]]]) -> list[str]:
        """Return what templates make.

        Args:
            templates: of each its name, its source and its variables.

        Raises:
            BadRequest: one is malformed, or takes too long or too much memory; it is named.
            Internal: the renderer does not work.
        """
        request = {"templates": [{"source": source, "context": context} for _name, source, context in templates]}
        ours, theirs = protocol.pair()
        with ours:
            with theirs, self._lock:
                try:
                    protocol.send(self._ensure(), request, [theirs.fileno()])
                except BrokenPipeError:  # somebody has killed it
                    self._end()
                    protocol.send(self._ensure(), request, [theirs.fileno()])
            answer = _receive(ours)
        if answer is None:
            names = ", ".join(name for name, _source, _context in templates)
            raise BadRequest(f"Template {names}: it takes too much time or memory")
        if "failed" in answer:
            raise BadRequest(f"Template {templates[answer['failed']][0]}: {answer['reason']}")
        texts: list[str] = answer["texts"]
        return texts

    def close(self) -> None:
        """Let the process go."""
        with self._lock:
            self._end()

    def _ensure(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._socket is None:
            self._socket = self._start()
        self._wanted_until = time.monotonic() + _IDLE_SECONDS
        if self._idle is None:
            self._watch(_IDLE_SECONDS)
        return self._socket

    def _watch(self, seconds: float) -> None:
        self._idle = threading.Timer(seconds, self._look)
        self._idle.daemon = True
        self._idle.start()

    def _look(self) -> None:
        """End the process when nobody has wanted it for a while."""
        with self._lock:
            left = self._wanted_until - time.monotonic()
            if self._idle is not threading.current_thread():
                return
            if left > 0:
                self._watch(left)
            else:
                self._end()

    def _start(self) -> socket.socket:
        ours, theirs = protocol.pair()
        with theirs:
            paths = [_PACKAGE_ROOT, *_homes("jinja2", "markupsafe")]
            argv = [sys.executable, "-I", "-S", "-c", _BOOT, str(theirs.fileno()), *paths]
            try:
                self._process = command.start(argv, pass_fds=[theirs.fileno()])
            except BaseException:
                ours.close()
                raise
        return ours

    def _end(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()  # what it has begun is done by processes of its own
            self._process.wait()
            self._process = None


def _homes(*packages: str) -> list[str]:
    """Return the directories that packages are imported from, without importing them."""
    found = []
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise Internal(f"The Python package {package!r} is missing", hint=f"pip install {package}")
        found.append(os.path.dirname(os.path.dirname(spec.origin)))
    return list(dict.fromkeys(found))


def _receive(sock: socket.socket) -> dict[str, Any] | None:
    """Return the renderer's answer, None when there is none."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    if not poll.poll((WALL_SECONDS + 5) * 1000):
        return None
    received = protocol.receive(sock)
    return None if received is None else received[0]
