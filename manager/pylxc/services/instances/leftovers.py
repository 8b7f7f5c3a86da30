"""What a daemon that died left of instances in storage pools that cannot be used: done when these are back."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pylxc.errors import NotFound, PylxcError
from pylxc.services.instances.locks import InstanceLocks

log = logging.getLogger(__name__)

_BUSY_SECONDS = 60.0
"""How long an operation that has just begun is waited for."""


class Leftovers:
    """Work that is to be done once for an instance; what fails is kept, in order, for `retry`."""

    def __init__(self, locks: InstanceLocks) -> None:
        self._locks = locks
        self._left: list[tuple[str, Callable[[], None]]] = []

    def do(self, key: str, finish: Callable[[], None]) -> None:
        """Finish something of an instance, now or later."""
        try:
            with self._locks.hold(key, "clean-up", wait=_BUSY_SECONDS):
                finish()
        except NotFound as error:
            log.warning("Nothing is left to clear up of instance %s: %s", key, error)
        except (PylxcError, OSError) as error:
            log.error("Failed clearing up instance %s: %s", key, error)
            self._left.append((key, finish))

    def retry(self) -> None:
        """Do what could not be done so far."""
        left, self._left = self._left, []
        for key, finish in left:
            self.do(key, finish)
