from __future__ import annotations

import asyncio
import logging
import socket

import aiohttp
import pytest

from pylxc.services.events import EventBus, LogEvents, Subscription, requestor
from pylxc.services.services import Services
from tests.unit.api.conftest import Api


def test_types_and_projects_are_filtered(services: Services) -> None:
    bus = services.events
    narrow = bus.subscribe({"lifecycle"}, "p1")
    wide = bus.subscribe({"lifecycle", "operation"}, None)
    bus.lifecycle("instance-started", "/1.0/instances/c1", project="default")
    bus.lifecycle("instance-started", "/1.0/instances/c2", project="p1")
    bus.lifecycle("config-updated", "/1.0", project="")
    bus.operation({"id": "x"}, "p1")
    sources = [narrow.get(1)["metadata"]["source"] for _ in range(2)]  # type: ignore[index]
    assert sources == ["/1.0/instances/c2?project=p1", "/1.0"]
    assert narrow.get(0) is None
    kinds = [wide.get(1)["type"] for _ in range(4)]  # type: ignore[index]
    assert kinds == ["lifecycle", "lifecycle", "lifecycle", "operation"]
    bus.unsubscribe(wide)
    bus.lifecycle("config-updated", "/1.0", project="")
    assert wide.get(0) is None


def test_the_requestor_goes_with_an_event(services: Services) -> None:
    listener = services.events.subscribe({"lifecycle"}, None)
    token = requestor.set({"username": "root", "protocol": "unix", "address": "pid=1"})
    services.events.lifecycle("instance-started", "/1.0/instances/c1", project="default", context={"n": 1})
    requestor.reset(token)
    event = listener.get(1)
    assert event is not None
    assert event["metadata"]["requestor"]["username"] == "root"
    assert event["metadata"]["context"] == {"n": 1}
    assert event["timestamp"].endswith("Z")


def test_a_slow_listener_is_dropped_and_nobody_waits() -> None:
    listener = Subscription(frozenset({"logging"}), None, limit=3)
    for number in range(5):
        listener.put(f'"{number}"')
    assert listener.overrun
    assert listener.take() == ['"0"', '"1"', '"2"']


def test_what_waits_is_bounded_in_size_as_well() -> None:
    listener = Subscription(frozenset({"logging"}), None, size=100)
    listener.put("x" * 5000)  # one may always wait
    assert len(listener.take()) == 1
    for _ in range(11):
        listener.put("x" * 10)
    assert listener.overrun
    assert len(listener.take()) == 10


def test_log_records_become_events() -> None:
    bus = EventBus()
    logger = logging.getLogger(f"pylxc.test.{id(bus)}")
    logger.addHandler(LogEvents(bus))
    listener = bus.subscribe({"logging"}, None)
    logger.warning("Low on %s", "luck")
    event = listener.get(1)
    assert event is not None
    assert event["metadata"] == {"message": "Low on luck", "level": "warning", "context": {"logger": logger.name}}


def test_the_websocket_sends_what_was_asked_for(api: Api, services: Services) -> None:
    async def scenario() -> None:
        connector = aiohttp.UnixConnector(api.path)
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await session.ws_connect("http://x/1.0/events?type=weather")
            assert caught.value.status == 400
            async with session.ws_connect("http://x/1.0/events?type=lifecycle&all-projects=true") as events:
                services.events.operation({"id": "x"}, "default")
                services.events.lifecycle("instance-started", "/1.0/instances/c1", project="p1")
                message = await events.receive_json(timeout=5)
                assert (message["type"], message["project"]) == ("lifecycle", "p1")

    asyncio.run(scenario())


def test_a_reader_that_has_stopped_is_cut_off(api: Api, services: Services) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(api.path)
        connection.sendall(
            b"GET /1.0/events?type=lifecycle HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert connection.recv(12) == b"HTTP/1.1 101"
        for _ in range(20_000):
            services.events.lifecycle("instance-started", "/1.0/instances/c1", project="", context={"x": "y" * 500})
        read = 0
        try:
            while chunk := connection.recv(1 << 20):
                read += len(chunk)
        except ConnectionResetError:
            pass
        assert read < 20_000 * 500
    assert not services.events.wants("lifecycle")


def test_listening_ends_when_the_server_stops(api: Api) -> None:
    async def scenario() -> None:
        connector = aiohttp.UnixConnector(api.path)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.ws_connect("http://x/1.0/events") as events,
        ):
            await asyncio.to_thread(api.stop_accepting)
            message = await events.receive(timeout=5)
            assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)

    asyncio.run(scenario())
