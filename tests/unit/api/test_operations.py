from __future__ import annotations

import asyncio
import errno
import threading
import time
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy import text

from pylxc.db.engine import Database
from pylxc.errors import Conflict, Forbidden, Internal
from pylxc.services.operations import Operation
from pylxc.services.services import Services
from tests.unit.api.conftest import Api


def _hold(services: Services, **kwargs: object) -> tuple[Operation, threading.Event]:
    """Start an operation that ends when the event is set."""
    release = threading.Event()

    def run(operation: Operation) -> dict[str, object]:
        while not release.wait(0.01):
            operation.check_cancelled()
        return {"done": True}

    arguments: dict[str, object] = {"project": "default", "resources": {}} | kwargs
    return services.operations.start("Holding", run, **arguments), release  # type: ignore[arg-type]


def test_an_operation_as_the_wire_has_it(api: Api, services: Services) -> None:
    operation, release = _hold(services, resources={"instances": ["/1.0/instances/c1"]}, metadata={"a": 1})
    found = api.get(f"/1.0/operations/{operation.id}")
    assert found["status"] == "Running"
    assert found["status_code"] == 103
    assert found["class"] == "task"
    assert found["may_cancel"] is False
    assert found["location"] == "none"
    assert found["resources"] == {"instances": ["/1.0/instances/c1"], "containers": ["/1.0/containers/c1"]}
    assert found["metadata"] == {"a": 1}
    release.set()
    assert operation.wait(5)
    found = api.get(f"/1.0/operations/{operation.id}")
    assert (found["status"], found["status_code"], found["metadata"]) == ("Success", 200, {"a": 1, "done": True})


def test_the_list_is_by_status_and_project(api: Api, services: Services) -> None:
    mine, release = _hold(services)
    other, release_other = _hold(services, project="other")
    common, release_common = _hold(services, project="")
    url = "/1.0/operations/{}".format
    assert api.get("/1.0/operations") == {"running": [url(mine.id), url(common.id)]}
    assert api.get("/1.0/operations?project=other") == {"running": [url(other.id), url(common.id)]}
    assert len(api.get("/1.0/operations?all-projects=true&recursion=1")["running"]) == 3
    for event in (release, release_other, release_common):
        event.set()
    assert mine.wait(5)
    assert api.get("/1.0/operations?recursion=1")["success"][0]["id"]


def test_wait_returns_at_the_end_or_after_its_timeout(api: Api, services: Services) -> None:
    operation, release = _hold(services)
    begin = time.monotonic()
    assert api.get(f"/1.0/operations/{operation.id}/wait?timeout=0.2")["status"] == "Running"
    assert 0.15 < time.monotonic() - begin < 5
    threading.Timer(0.1, release.set).start()
    assert api.get(f"/1.0/operations/{operation.id}/wait?timeout=-1")["status"] == "Success"
    assert api.get(f"/1.0/operations/{operation.id}/wait")["status"] == "Success"
    for bad in ("x", "nan"):
        assert api.request("GET", f"/1.0/operations/{operation.id}/wait?timeout={bad}").status == 400


def test_cancel(api: Api, services: Services) -> None:
    stubborn, release = _hold(services)
    assert api.request("DELETE", f"/1.0/operations/{stubborn.id}").status == 400
    release.set()
    assert stubborn.wait(5)
    assert api.request("DELETE", f"/1.0/operations/{stubborn.id}").status == 400

    asked = threading.Event()
    operation, _release = _hold(services, on_cancel=asked.set)
    assert api.get(f"/1.0/operations/{operation.id}")["may_cancel"] is True
    assert api.request("DELETE", f"/1.0/operations/{operation.id}").status == 200
    assert asked.is_set()
    assert operation.wait(5)
    assert api.get(f"/1.0/operations/{operation.id}")["status_code"] == 401

    token = services.operations.start("Token", None, project="", resources={}, class_="token")
    assert api.request("DELETE", f"/1.0/operations/{token.id}").status == 200
    assert token.to_json()["status"] == "Cancelled"


def test_failure_keeps_the_metadata(services: Services, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(operation: Operation) -> None:
        operation.update_from({"return": 127})
        raise Conflict("It is taken")

    def crash(_operation: Operation) -> None:
        raise ZeroDivisionError("secret detail")

    refused = services.operations.start("x", refuse, project="", resources={})
    crashed = services.operations.start("x", crash, project="", resources={})
    assert refused.wait(5)
    assert crashed.wait(5)
    found = refused.to_json()
    assert (found["status"], found["status_code"], found["err"]) == ("Failure", 400, "It is taken")
    assert found["metadata"] == {"return": 127}
    assert "secret" not in crashed.to_json()["err"]
    assert "secret detail" in caplog.text


def test_a_finished_operation_vanishes(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    operation = services.operations.start("x", lambda _op: None, project="", resources={})
    assert operation.wait(5)
    assert services.operations.get(operation.id) is operation
    monkeypatch.setattr("pylxc.services.operations.KEPT_SECONDS", -1.0)
    assert services.operations.all(None) == []


def test_an_operation_whose_end_nobody_was_told_of_is_kept(
    api: Api, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client that began it may be slower than the operation, by much."""
    first, second = (services.operations.start("x", lambda _op: None, project="", resources={}) for _ in range(2))
    assert first.wait(5)
    assert second.wait(5)
    monkeypatch.setattr("pylxc.services.operations.KEPT_SECONDS", -1.0)
    assert api.get("/1.0/operations") == {}
    assert api.get(f"/1.0/operations/{first.id}/wait")["status"] == "Success"
    assert api.request("GET", f"/1.0/operations/{first.id}/wait").status == 404
    monkeypatch.setattr("pylxc.services.operations.UNTOLD_MOST", 1)
    third = services.operations.start("x", lambda _op: None, project="", resources={})
    assert third.wait(5)
    assert api.request("GET", f"/1.0/operations/{second.id}").status == 404
    monkeypatch.setattr("pylxc.services.operations.UNTOLD_SECONDS", -1.0)
    assert api.request("GET", f"/1.0/operations/{third.id}").status == 404


def test_events_of_an_operation_end_with_the_final_state(api: Api, services: Services) -> None:
    async def scenario() -> list[dict[str, object]]:
        connector = aiohttp.UnixConnector(api.path)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.ws_connect("http://x/1.0/events?type=operation&project=default") as events,
        ):
            operation, release = _hold(services)
            foreign = services.operations.start("x", lambda _op: None, project="other", resources={})
            assert foreign.wait(5)
            operation.progress("download_progress", "rootfs: 50%", percent="50")
            release.set()
            seen: list[dict[str, object]] = []
            while not seen or seen[-1]["status"] != "Success":
                message = await events.receive_json(timeout=5)
                assert message["type"] == "operation"
                assert message["project"] == "default"
                assert message["metadata"]["id"] == operation.id
                seen.append(message["metadata"])
            return seen

    seen = asyncio.run(scenario())
    assert [item["status"] for item in seen] == ["Running", "Running", "Success"]
    metadata = seen[1]["metadata"]
    assert isinstance(metadata, dict)
    assert metadata["download_progress"] == "rootfs: 50%"
    assert metadata["progress"] == {"stage": "download", "percent": "50"}


def test_websockets_reach_the_operation_once_per_secret(api: Api, services: Services) -> None:
    release = threading.Event()

    async def echo(name: str, websocket: aiohttp.web.WebSocketResponse) -> None:
        async for message in websocket:
            await websocket.send_str(f"{name}: {message.data}")

    def run(_operation: Operation) -> None:
        assert release.wait(10)

    operation = services.operations.start(
        "x", run, project="default", resources={}, class_="websocket", sockets=("0", "control"), connect=echo
    )
    secrets = operation.to_json()["metadata"]["fds"]
    base = f"http://x/1.0/operations/{operation.id}/websocket"
    assert api.request("GET", base + f"?secret={secrets['0']}").status == 400  # no upgrade: the secret stays good

    async def status(session: aiohttp.ClientSession, secret: str) -> int:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"{base}?secret={secret}")
        return caught.value.status

    async def scenario() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(api.path)) as session:
            assert await status(session, "wrong") == 403
            with pytest.raises(Forbidden):
                operation.claim("\udcff")  # as a byte that is no UTF-8 becomes
            async with session.ws_connect(f"{base}?secret={secrets['control']}") as websocket:
                await websocket.send_str("hello")
                assert await websocket.receive_str(timeout=5) == "control: hello"
                assert await status(session, secrets["control"]) == 403
            async with session.ws_connect(f"{base}?secret={secrets['0']}") as websocket:
                await websocket.send_str("hi")
                assert await websocket.receive_str(timeout=5) == "0: hi"
            release.set()
            assert operation.wait(5)
            assert await status(session, secrets["0"]) == 400

    asyncio.run(scenario())


def test_closing_takes_nothing_new_and_waits(services: Services) -> None:
    operation, release = _hold(services)
    threading.Timer(0.1, release.set).start()
    assert services.operations.close(5) == 0
    assert operation.is_done
    with pytest.raises(Exception, match="stopping"):
        services.operations.start("x", lambda _op: None, project="", resources={})


def test_many_long_operations_do_not_hold_up_a_short_one(services: Services) -> None:
    held = [_hold(services) for _ in range(100)]
    short = services.operations.start("x", lambda _op: None, project="", resources={})
    assert short.wait(5)
    for operation, release in held:
        release.set()
        assert operation.wait(5)


def test_a_system_call_that_failed_is_one_clear_line(api: Api, services: Services) -> None:
    def run(_: Operation) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/pool/c1")

    operation = services.operations.start("Filling", run, project="default", resources={})
    assert operation.wait(5)
    assert api.get(f"/1.0/operations/{operation.id}")["err"] == "No space left on device: '/pool/c1'"


def test_a_database_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    try:
        with pytest.raises(Internal, match="The database failed: no such table"), database.transaction() as session:
            session.execute(text("INSERT INTO missing VALUES (1)"))
    finally:
        database.close()
