from __future__ import annotations

import asyncio
import threading
from typing import cast

from aiohttp import web

from pylxc.daemon.listeners import Listeners
from pylxc.services.server import Server


async def _nothing(_request: web.BaseRequest) -> web.StreamResponse:
    return web.Response()


def test_who_changes_the_configuration_does_not_wait_for_who_reads_it() -> None:
    """The configuration is locked while a listener moves; whoever is about to listen must not hold that up."""
    moved: list[bool] = []

    class Configured:
        def value(self, key: str) -> str:
            mover = threading.Thread(target=lambda: listeners.move(key, ""))
            mover.start()
            mover.join(5)
            moved.append(not mover.is_alive())
            return ""

    async def scenario() -> Listeners:
        return Listeners(web.Server(_nothing), cast(Server, Configured()), {})

    listeners = asyncio.run(scenario())
    listeners.start()
    assert moved == [True, True]
