"""Running instances that are kept still for a while, for a copy of files that are all of one moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pylxc.paths import Paths
from pylxc.revert import Reverter
from pylxc.runtime.handle import Runtime


class KeptStill:
    """Who keeps which instance still; thread-safe."""

    def __init__(self, paths: Paths, runtime: Runtime) -> None:
        self._paths = paths
        self._runtime = runtime
        self._guard = threading.Lock()
        self._keepers: dict[str, int] = {}

    @contextmanager
    def keep(self, key: str) -> Iterator[None]:
        """Keep a running instance still while the block runs, or several that overlap."""
        with self._guard:
            if key not in self._keepers:
                self._freeze(key)
            self._keepers[key] = self._keepers.get(key, 0) + 1
        try:
            yield
        finally:
            with self._guard:
                self._keepers[key] -= 1
                if not self._keepers[key]:
                    del self._keepers[key]
                    self._thaw(key)

    def release(self, key: str) -> bool:
        """Let an instance go on that a daemon which died kept still; return whether one did."""
        if not self._mark(key).exists():
            return False
        self._thaw(key)
        return True

    def _freeze(self, key: str) -> None:
        self._mark(key).touch()
        with Reverter() as revert:
            revert.add(self._thaw, key)
            self._runtime.freeze(key)
            revert.success()

    def _thaw(self, key: str) -> None:
        """Let an instance go on; one that has ended meanwhile is left alone."""
        running = self._runtime.get(key)
        if running is not None and running.status == "Frozen":
            self._runtime.unfreeze(key)
        self._mark(key).unlink(missing_ok=True)

    def _mark(self, key: str) -> Path:
        """Return the file that says that it is the daemon who keeps an instance still, for the next daemon."""
        return Path(f"{self._paths.instance_run(key)}/kept-still")
