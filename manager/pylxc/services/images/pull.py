"""Images from elsewhere: found by a driver, fetched once however many ask for it, and kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from pylxc.db import images as rows
from pylxc.db import projects
from pylxc.db.engine import Database
from pylxc.drivers.image.base import ImageDriver, Offer
from pylxc.drivers.image.recipe import RecipeDriver
from pylxc.errors import Cancelled, Internal, NotSupported, PylxcError
from pylxc.paths import Paths
from pylxc.resources import resource_dir
from pylxc.services.images.store import Staging, Store
from pylxc.services.operations import Operation

_WATCH_SECONDS = 0.25


class Import(Protocol):
    """Puts what was fetched into the store, with a row; returns the fingerprint."""

    def __call__(self, project: str, staging: Staging, source: dict[str, str], *, cached: bool) -> str:
        """Import `staging` into `project`."""


class Puller:
    """Fetches images through the drivers; thread-safe."""

    def __init__(self, db: Database, store: Store, paths: Paths, import_: Import) -> None:
        self._db = db
        self._store = store
        self._import = import_
        self._drivers: dict[str, ImageDriver] = {
            "recipe": RecipeDriver(f"{paths.root}/recipes", str(resource_dir("images"))),
        }
        self._fetches: dict[tuple[str, str, str], _Fetch] = {}
        self._lock = threading.Lock()

    def find(self, source: Mapping[str, str]) -> Offer:
        """Return what a source (protocol, server, alias, ...) names, without fetching it.

        Raises:
            NotSupported: no driver for its protocol.
            PylxcError: what the driver raises.
        """
        return self._driver(source.get("protocol") or "lxd").find(source)

    def offers(self) -> list[dict[str, Any]]:
        """Return what the recipes make, in the shape of GET /1.0/images."""
        return [
            {
                "aliases": [{"name": name, "description": ""} for name in offer.aliases],
                "architecture": offer.architecture,
                "properties": offer.properties,
                "public": True,
                "type": "container",
                "update_source": {"protocol": "recipe", "alias": offer.source["alias"]},
            }
            for offer in self._driver("recipe").offers({})
        ]

    def pull(self, project: str, offer: Offer, operation: Operation, *, cached: bool, fresh: bool = False) -> str:
        """Return the fingerprint of the image that `offer` is, fetched unless the store has it.

        Whoever asks for what is being fetched already waits for that; it goes on until the last one has cancelled.

        Args:
            project: whose image it becomes.
            offer: from `find`.
            operation: gets the progress; its cancel ends the wait.
            cached: mark a newly fetched one as fetched on behalf of an instance.
            fresh: fetch it even when the store has this version.

        Raises:
            PylxcError: what the driver raises, or Cancelled.
        """
        while True:
            if not fresh and (present := self._present(project, offer)):
                return present
            key = (project, offer.source["protocol"], offer.version)
            with self._lock:
                fetch = self._fetches.get(key)
                if fetch is None:
                    fetch = self._fetches[key] = _Fetch(
                        lambda f: self._fetch(project, offer, f, cached=cached), partial(self._fetches.pop, key, None)
                    )
                    fetch.join(operation)
                    fetch.start()
                elif not fetch.join(operation):
                    fetch = None  # it is being given up at this moment
            if fetch is not None:
                return fetch.wait(operation)

    def _present(self, project: str, offer: Offer) -> str | None:
        with self._db.reading() as session:
            scope = projects.scope_name(session, project, "images")
            for image in rows.by_source(session, scope, **offer.source):
                if self._store.has(image.fingerprint):
                    return image.fingerprint
        return None

    def _fetch(self, project: str, offer: Offer, fetch: _Fetch, *, cached: bool) -> str:
        driver = self._driver(offer.source["protocol"])
        with self._store.stage() as staging:
            driver.fetch(offer, staging, fetch.progress, fetch.check_cancelled)
            return self._import(project, staging, offer.source, cached=cached)

    def _driver(self, protocol: str) -> ImageDriver:
        driver = self._drivers.get(protocol)
        if driver is None:
            raise NotSupported(f"Images cannot be fetched by the protocol {protocol[:40]!r}")
        return driver


class _Fetch:
    """One fetch in a thread of its own, and the operations that wait for it."""

    def __init__(self, run: Callable[[_Fetch], str], on_end: Callable[[], object]) -> None:
        self._run_it = run
        self._on_end = on_end
        self._operations: list[Operation] = []
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._given_up = False
        self._fingerprint = ""
        self._error: PylxcError | None = None
        self._last: tuple[str, str] | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, name="image-fetch", daemon=True).start()

    def join(self, operation: Operation) -> bool:
        """Count `operation` in, unless it is too late."""
        with self._lock:
            if self._given_up or self._done.is_set():
                return False
            self._operations.append(operation)
            last = self._last
        if last:
            operation.progress(*last)
        return True

    def wait(self, operation: Operation) -> str:
        while not self._done.wait(_WATCH_SECONDS):
            if operation.cancelled.is_set():
                with self._lock:
                    self._operations.remove(operation)
                    self._given_up = not self._operations
                if self._given_up:
                    self._done.wait()  # what it has begun is gone before the cancel is through
                operation.check_cancelled()
        if self._error:
            raise self._error
        return self._fingerprint

    def progress(self, key: str, text: str) -> None:
        with self._lock:
            self._last = (key, text)
            operations = list(self._operations)
        for operation in operations:
            operation.progress(key, text)

    def check_cancelled(self) -> None:
        if self._given_up:
            raise Cancelled("Fetching the image was cancelled")

    def _run(self) -> None:
        try:
            self._fingerprint = self._run_it(self)
        except PylxcError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 - the waiting operations must hear of it
            self._error = Internal(f"Failed fetching the image: {error}")
        finally:
            self._on_end()
            self._done.set()
