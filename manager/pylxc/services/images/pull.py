"""Images from elsewhere: found by a driver, fetched once however many ask for it, and kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from pylxc.db import images as rows
from pylxc.db import projects
from pylxc.db.engine import Database
from pylxc.drivers.image.base import Host, Offer, other_project
from pylxc.drivers.image.registry import ImageDrivers
from pylxc.errors import Cancelled, Internal, PylxcError
from pylxc.services.images.store import Staging, Store
from pylxc.services.operations import Operation
from pylxc.wire import images as wire

_WATCH_SECONDS = 0.25


class Import(Protocol):
    """Puts what was fetched into the store, with a row; returns the fingerprint."""

    def __call__(self, project: str, staging: Staging, offer: Offer) -> str:
        """Import `staging`, which should be what `offer` is, into `project`, as cached."""


class Puller:
    """Fetches images through the drivers; thread-safe."""

    def __init__(self, db: Database, store: Store, host: Host, import_: Import) -> None:
        self._db = db
        self._store = store
        self._import = import_
        self._drivers = ImageDrivers(host)
        self._fetches: dict[tuple[str, str, str], _Fetch] = {}
        self._lock = threading.Lock()

    def check(self, source: Mapping[str, str]) -> None:
        """Refuse a source that no driver is for.

        Raises:
            NotSupported: its protocol is not known.
        """
        self._drivers.get(_protocol(source))

    def find(self, source: Mapping[str, str], operation: Operation, *, fresh: bool = False) -> Offer:
        """Return what a source (protocol, server, alias, ...) names, without fetching it.

        Args:
            source: of a request or an image's row.
            operation: its cancel ends it.
            fresh: fail when the place cannot be reached, instead of returning what was known of it last.

        Raises:
            PylxcError: what the driver raises, or Cancelled.
        """
        return self._drivers.get(_protocol(source)).find(source, operation.check_cancelled, fresh=fresh)

    def kept(self, project: str, source: Mapping[str, str]) -> str | None:
        """Return the newest image that is kept up to date from the alias that `source` names, None when there is none.

        Who makes an instance need not ask the server then.
        """
        wanted = {key: source.get(key) or "" for key in ("protocol", "server", "alias")}
        wanted |= {"server": wanted["server"].rstrip("/"), "project": other_project(source)}
        if not wanted["server"] or not wanted["alias"]:
            return None
        with self._db.reading() as session:
            scope = projects.scope_name(session, project, "images")
            for image in rows.by_source(session, scope, wanted):
                if image.auto_update and self._store.has(image.fingerprint):
                    return image.fingerprint
        return None

    def look(self, source: Mapping[str, str]) -> wire.Image:
        """Return the one image of a place that `source` names; raises like `find`."""
        return self._drivers.get(_protocol(source)).find(source, lambda: None, fresh=False).image

    def listing(self, source: Mapping[str, str]) -> bytes:
        """Return what a place has, as JSON; see `ImageDriver.listing`."""
        return self._drivers.get(_protocol(source)).listing(source)

    def pull(self, project: str, offer: Offer, operation: Operation, *, fresh: bool = False) -> str:
        """Return the fingerprint of the image that `offer` is, fetched unless the store has it.

        Whoever asks for what is being fetched already waits for that; it goes on until the last one has cancelled. What
        was not here is cached: whoever wants to keep it says so when he has it.

        Args:
            project: whose image it becomes.
            offer: from `find`.
            operation: gets the progress; its cancel ends the wait.
            fresh: make it anew even when the store has this version of it, if only making it tells what it will be.

        Raises:
            PylxcError: what the driver raises, or Cancelled.
        """
        with self._db.reading() as session:
            project = projects.scope_name(session, project, "images")  # two that share their images share fetches
        while True:
            if (offer.fingerprint or not fresh) and (present := self._present(project, offer)):
                return present
            key = (project, offer.source["protocol"], offer.version)
            with self._lock:
                fetch = self._fetches.get(key)
                if fetch is None:
                    fetch = self._fetches[key] = _Fetch(
                        partial(self._fetch, project, offer), partial(self._fetches.pop, key, None)
                    )
                    joined = fetch.join(operation)
                    fetch.start()
                else:
                    joined = fetch.join(operation)
            if joined:
                return fetch.wait(operation)
            fetch.wait_end()  # it has ended, or is being given up at this moment

    def _present(self, project: str, offer: Offer) -> str | None:
        with self._db.reading() as session:
            if offer.fingerprint:
                images = [image] if (image := rows.find(session, project, offer.fingerprint)) else []
            else:
                images = rows.by_source(session, project, offer.source)
            for image in images:
                if self._store.has(image.fingerprint):
                    return image.fingerprint
        return None

    def _fetch(self, project: str, offer: Offer, fetch: _Fetch) -> str:
        driver = self._drivers.get(offer.source["protocol"])
        self._store.need_room(offer.image["size"])
        with self._store.stage() as staging:
            driver.fetch(offer, staging, fetch.progress, fetch.check_cancelled)
            return self._import(project, staging, offer)


def _protocol(source: Mapping[str, str]) -> str:
    return source.get("protocol") or "lxd"


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
        self._last: tuple[str, str, dict[str, int]] | None = None

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
            operation.progress(last[0], last[1], **last[2])
        return True

    def wait_end(self) -> None:
        self._done.wait()

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

    def progress(self, key: str, text: str, **numbers: int) -> None:
        with self._lock:
            self._last = (key, text, numbers)
            operations = list(self._operations)
        for operation in operations:
            operation.progress(key, text, **numbers)

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
