from __future__ import annotations

import asyncio
import socket
from typing import cast

import pytest
from aiohttp import web

from pylxc.api import gates
from pylxc.api.tls import TlsContext
from pylxc.api.tls_gate import Crowd, TlsGate, TlsProtocol


def test_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("pylxc.api.gates.time.monotonic", lambda: now[0])
    pace = gates.Pace(3, 2.0)
    assert [pace.take() for _ in range(5)] == [0.0, 0.0, 0.0, 0.5, 1.0]
    now[0] += 1.0
    assert pace.take() == 0.5
    now[0] += 1000.0
    assert [pace.take() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_who_is_trusted_may_take_long_over_an_answer() -> None:
    async def nothing(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    async def scenario() -> list[bool]:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        http = web.Server(nothing)
        gate = TlsGate(http, listener, cast(TlsContext, None), Crowd())
        protocol = TlsProtocol(gate, http, "127.0.0.1")
        protocol.transport = asyncio.Transport()
        limits = []
        for trusted in (True, False):
            await protocol.begin(trusted=trusted)
            protocol.rest()
            limits.append(protocol._deadline is not None)
        protocol.work()
        gate.close()
        return limits

    assert asyncio.run(scenario()) == [False, True]
