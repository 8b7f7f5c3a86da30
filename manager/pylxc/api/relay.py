"""Carries an exec or a console between its process's descriptors and the client's websockets.

LXD's rules: data in binary frames, an empty text frame is the end of a stream, control is JSON text.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import struct
import termios
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from aiohttp import WSMsgType, web

from pylxc.api import descriptors
from pylxc.errors import PylxcError

_PIPE_BYTES = 1 << 20
_MAX_LINE = 4096
_MAX_SIZE = 1 << 16


class ExecRelay:
    """The `Relay` of `services.instances.exec` for websockets.

    Args:
        interactive: the process has a terminal: one socket both ways.
    """

    def __init__(self, interactive: bool) -> None:
        self._interactive = interactive
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._connected = threading.Event()
        self._given_up = False
        self._begun = asyncio.Event()
        self._exited = descriptors.Flag()
        self._closed = asyncio.Event()
        self._outputs: set[asyncio.Task[None]] = set()
        self._control: socket.socket | None = None
        self._stdio: list[int] = []

    async def connect(self, name: str, websocket: web.WebSocketResponse) -> None:
        """Carry one websocket until its end."""
        self._sockets[name] = websocket
        if self._sockets.keys() >= ({"0", "control"} if self._interactive else {"0", "1", "2"}):
            self._connected.set()
        await self._begun.wait()
        task = asyncio.create_task(self._carry(name, websocket))
        if name in ("1", "2") or (name == "0" and self._interactive):
            self._outputs.add(task)
        closed = asyncio.create_task(self._closed.wait())
        await asyncio.wait({task, closed} if task not in self._outputs else {task}, return_when="FIRST_COMPLETED")
        for left in (task, closed):
            left.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await task

    def wait_connected(self, timeout: float) -> bool:
        """Block until the sockets that are needed are there; False when not in `timeout` seconds, or given up."""
        return self._connected.wait(timeout) and not self._given_up

    def give_up(self) -> None:
        """Wait for sockets no longer."""
        self._given_up = True
        self._connected.set()

    def begin(self, control: socket.socket, stdio: Sequence[int]) -> None:
        """Start carrying; see `services.instances.exec.Relay`."""
        self._wait(self._begin(control, list(stdio)))

    def finish(self) -> None:
        """Carry what is left and close."""
        self._wait(self._finish())

    def _wait(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _begin(self, control: socket.socket, stdio: list[int]) -> None:
        control.setblocking(False)
        self._control, self._stdio = control, stdio
        if self._interactive:
            self._stdio = await self._receive_terminal(control)
        for fd in self._stdio:
            os.set_blocking(fd, False)
            if not self._interactive:
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._begun.set()

    async def _receive_terminal(self, control: socket.socket) -> list[int]:
        """Return the terminal's master, [] when the process could not be started."""
        try:
            control.send(b'{"fds":0}\n')
            await descriptors.wait_ready(control.fileno())
            _, fds, _, _ = socket.recv_fds(control, _MAX_LINE, 1)
        except OSError:
            return []
        return fds

    async def _finish(self) -> None:
        self._exited.set()
        self._begun.set()
        await asyncio.sleep(0)  # who waits to write lets go of its descriptor before that is closed
        if self._outputs:
            await asyncio.wait(self._outputs)
        self._closed.set()
        for number in range(len(self._stdio)):
            self._close(number)
        self._stdio = []
        if self._control is not None:
            self._control.close()
            self._control = None

    async def _carry(self, name: str, websocket: web.WebSocketResponse) -> None:
        if name == "control":
            await self._obey(websocket)
        elif not self._stdio:
            return
        elif self._interactive:
            master = self._stdio[0]
            typed = asyncio.create_task(self._input(websocket, master))
            await self._output(websocket, master)
            typed.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await typed
        elif name == "0":
            await self._input(websocket, self._stdio[0])
            self._close(0)
            await self._closed.wait()
        else:
            watch = asyncio.create_task(self._watch(websocket))
            await self._output(websocket, self._stdio[int(name)])
            self._close(int(name))
            watch.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await watch

    async def _output(self, websocket: web.WebSocketResponse, fd: int) -> None:
        with suppress(ConnectionError):
            while data := await descriptors.read(fd, stop=self._exited):
                await websocket.send_bytes(data)
            await websocket.send_str("")

    async def _input(self, websocket: web.WebSocketResponse, fd: int) -> None:
        async for message in websocket:
            if message.type is WSMsgType.ERROR or (message.type is WSMsgType.TEXT and not message.data):
                return
            data = message.data.encode() if message.type is WSMsgType.TEXT else message.data
            if not await descriptors.write(fd, data, stop=self._exited):
                return

    def _close(self, number: int) -> None:
        """Let go of a stream at its end: a process that writes on to one that nobody reads is to hear of it."""
        if self._stdio and self._stdio[number] >= 0:
            os.close(self._stdio[number])
            self._stdio[number] = -1

    async def _watch(self, websocket: web.WebSocketResponse) -> None:
        """A client without control tells by its output socket that it goes away."""
        await websocket.receive()
        if "control" not in self._sockets:
            self._kill()

    async def _obey(self, websocket: web.WebSocketResponse) -> None:
        async for message in websocket:
            if message.type is WSMsgType.ERROR:
                break
            order = _order(message.data)
            with suppress(ValueError, OverflowError, KeyError, TypeError, struct.error):
                if order.get("command") == "window-resize":
                    self._resize(int(order["args"]["width"]), int(order["args"]["height"]))
                elif order.get("command") == "signal":
                    self._signal(int(order["signal"]))
        if not self._exited.is_set():
            self._kill()

    def _resize(self, width: int, height: int) -> None:
        if self._interactive and self._stdio:
            fcntl.ioctl(self._stdio[0], termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def _signal(self, number: int) -> None:
        if self._control is not None:
            with suppress(OSError):
                self._control.send(json.dumps({"signal": number}).encode() + b"\n")

    def _kill(self) -> None:
        """Close the supervisor's socket: it kills the process."""
        if self._control is not None:
            with suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)


class ConsoleRelay:
    """The `Relay` of `services.instances.console` for websockets. Closing either of them detaches."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._connected = threading.Event()
        self._finished = False
        self._begun = asyncio.Event()
        self._ended = descriptors.Flag()
        self._console: socket.socket | None = None
        self._resize: Callable[[int, int], None] | None = None

    async def connect(self, name: str, websocket: web.WebSocketResponse) -> None:
        """Carry one websocket until its end."""
        self._sockets[name] = websocket
        if self._sockets.keys() >= {"0", "control"}:
            self._connected.set()
        await self._begun.wait()
        if self._console is not None:
            task = asyncio.create_task(self._input(websocket) if name == "0" else self._obey(websocket))
            ended = asyncio.create_task(self._ended.wait())
            await asyncio.wait({task, ended}, return_when="FIRST_COMPLETED")
            for left in (task, ended):
                left.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await task
            self._ended.set()

    def wait_connected(self, timeout: float) -> bool:
        """Block until both sockets are there; False when they are not in `timeout` seconds, or the end came first."""
        return self._connected.wait(timeout) and not self._finished

    def carry(self, console: socket.socket, resize: Callable[[int, int], None]) -> None:
        """Carry until the client detaches or the console ends."""
        asyncio.run_coroutine_threadsafe(self._carry(console, resize), self._loop).result()

    def finish(self) -> None:
        """End the carrying."""
        self._finished = True
        self._connected.set()
        self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._ended.set()
        self._begun.set()

    async def _carry(self, console: socket.socket, resize: Callable[[int, int], None]) -> None:
        console.setblocking(False)
        self._console, self._resize = console, resize
        self._begun.set()
        websocket = self._sockets["0"]
        with console:
            with suppress(ConnectionError):
                while data := await descriptors.read(console.fileno(), stop=self._ended):
                    await websocket.send_bytes(data)
                await websocket.send_bytes(b"\n\r")
            self._ended.set()
            await asyncio.sleep(0)  # who waits to write lets go of it before it is closed

    async def _input(self, websocket: web.WebSocketResponse) -> None:
        async for message in websocket:
            if message.type is WSMsgType.ERROR:
                return
            data = message.data.encode() if message.type is WSMsgType.TEXT else message.data
            if self._console is None or not await descriptors.write(self._console.fileno(), data, stop=self._ended):
                return

    async def _obey(self, websocket: web.WebSocketResponse) -> None:
        async for message in websocket:
            if message.type is WSMsgType.ERROR:
                return
            order = _order(message.data)
            if order.get("command") == "window-resize" and self._resize is not None:
                with suppress(ValueError, OverflowError, KeyError, TypeError, PylxcError):
                    width, height = int(order["args"]["width"]), int(order["args"]["height"])
                    if 0 < width < _MAX_SIZE and 0 < height < _MAX_SIZE:
                        await asyncio.to_thread(self._resize, width, height)


def _order(text: str | bytes) -> dict[str, Any]:
    """Return what a control message says, {} when it is none."""
    if len(text) > _MAX_LINE:
        return {}
    try:
        order = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return order if isinstance(order, dict) else {}
