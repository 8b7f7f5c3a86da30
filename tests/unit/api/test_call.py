"""What handlers have of a request."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from types import SimpleNamespace
from typing import cast

from aiohttp import web
from yarl import URL

from pylxc.api.app import THREADS
from pylxc.api.call import Call
from pylxc.services.services import Services
from tests.unit.api.conftest import Api


def call(executor: Executor, query: str = "") -> Call:
    request = cast(web.BaseRequest, SimpleNamespace(query=URL(f"/?{query}").query))
    return Call(cast(Services, None), request, {}, executor, asyncio.Event())


def test_a_query_of_very_many_values() -> None:
    """What is not wanted of it costs nothing: everybody may send one."""
    with ThreadPoolExecutor(1) as executor:
        asked = call(executor, "a=1" + "&a=2" * 30_000)
        begin = time.monotonic()
        assert asked.query == {"a": "1"}
        assert time.monotonic() - begin < 1


def test_what_takes_long_holds_nobody_up() -> None:
    release = threading.Event()

    async def scenario() -> str:
        with ThreadPoolExecutor(1) as busy:
            busy.submit(release.wait)
            try:
                return await asyncio.wait_for(call(busy).aside(lambda: "done"), 10)
            finally:
                release.set()

    assert asyncio.run(scenario()) == "done"


def test_the_network_does_not_take_the_threads_of_the_host(api: Api) -> None:
    release = threading.Event()
    for _ in range(THREADS):
        api.app._network.submit(release.wait)
    try:
        assert api.get("/1.0")["auth"] == "trusted"
    finally:
        release.set()
