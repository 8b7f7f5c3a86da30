"""Storage pools: rows, and the drivers behind them. Volumes are in `pylxc.services.storage.volumes`."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError

from pylxc import units, validate
from pylxc.config.key import Table
from pylxc.config.storage import POOLS
from pylxc.db import models, storage
from pylxc.db.engine import Database
from pylxc.drivers.storage import registry
from pylxc.drivers.storage.driver import Info, StorageDriver
from pylxc.errors import BadRequest, Conflict, PylxcError, Unavailable
from pylxc.paths import Paths
from pylxc.revert import Reverter
from pylxc.services import etag
from pylxc.services.events import EventBus
from pylxc.services.storage.listing import Listing
from pylxc.services.storage.places import Trees
from pylxc.services.storage.sweeper import Sweeper
from pylxc.services.storage.volumes import Volumes
from pylxc.wire.storage import StoragePool, StoragePoolResources

log = logging.getLogger(__name__)

User = tuple[str, str, str]
Users = list[User]
Names = list[str]
Pools = list[StoragePool]  # inside the class `list` is its method


class StoragePools:
    """Pools, and the volumes in them.

    Attributes:
        trees: what is in the pools.
        volumes: those of images and instances.
        listing: what there is to see of volumes.
        on_return: called in turn, in a thread of their own, with the name of a pool that could not be used and now can.
    """

    def __init__(self, db: Database, paths: Paths, events: EventBus) -> None:
        self._db = db
        self._paths = paths
        self._events = events
        self._broken: set[str] = set()
        self._guard = threading.Lock()
        self.on_return: list[Callable[[str], None]] = []
        self._drivers: dict[str, StorageDriver] = {}
        self._changing = threading.Lock()
        self._sweeper = Sweeper()
        self.trees = Trees(self.driver, self._sweeper)
        self.volumes = Volumes(db, self.trees)
        self.listing = Listing(db, self.trees)

    # Life of the service

    def start(self) -> None:
        """Bring the pools into use, finish or undo what was cut off; a pool that fails is shown as unavailable."""
        os.makedirs(self._paths.storage_pools, mode=0o711, exist_ok=True)
        os.chmod(self._paths.storage_pools, 0o711)  # noqa: S103 - to pass through only
        with self._db.reading() as session:
            unsettled = storage.unsettled_pools(session)
            pools = storage.pools(session)
        for name in set(os.listdir(self._paths.storage_pools)) - {pool.name for pool in (*unsettled, *pools)}:
            log.warning("%s is no storage pool of this server: see pylxc admin recover", self._paths.pool(name))
        for pool in unsettled:
            log.info("Removing storage pool %s that was left half made or half deleted", pool.name)
            try:
                self._remove(pool)
            except PylxcError as error:
                log.warning("Cannot remove storage pool %s: %s", pool.name, error)
        for pool in pools:
            try:
                driver = self._load(pool)
                driver.open()
                self._sweeper.add(driver)
            except PylxcError as error:
                log.warning("Storage pool %s cannot be used: %s", pool.name, error)
                self._broken.add(pool.name)
        self.volumes.settle()

    def retry(self) -> None:
        """Try the pools again that cannot be used; see `on_return`."""
        for name in sorted(self._broken):
            try:
                self.driver(name)
            except PylxcError as error:
                log.debug("%s", error)

    def finish(self) -> None:
        """Wait until the space of deleted volumes is free again."""
        self._sweeper.finish()

    def stop(self) -> None:
        """Let go of the pools, for the host to go down; no container runs any more."""
        self._sweeper.finish()
        for name in self.names():
            if not self.is_available(name):
                continue  # to ask for its driver would bring it back, if it can come
            try:
                self.driver(name).close()
            except PylxcError as error:
                log.warning("Cannot let go of storage pool %s: %s", name, error)

    def drivers(self) -> list[Info]:
        """Return the drivers that there are."""
        return registry.infos()

    # Pools

    def list(self) -> Pools:
        """Return the pools by name."""
        with self._db.reading() as session:
            users = storage.users(session)
            return [self._render(pool, users.get(pool.name, [])) for pool in storage.pools(session)]

    def place(self, name: str) -> str:
        """Return the directory of a pool of that name, whether it exists or not."""
        return self._paths.pool(name)

    def names(self) -> Names:
        """Return the pools' names."""
        with self._db.reading() as session:
            return [pool.name for pool in storage.pools(session)]

    def get(self, name: str) -> StoragePool:
        """Return a pool; raises NotFound."""
        with self._db.reading() as session:
            return self._render(storage.pool(session, name), storage.users(session).get(name, []))

    def definition(self, name: str) -> dict[str, Any]:
        """Return what makes a pool what it is, as the wire has it; raises NotFound."""
        with self._db.reading() as session:
            pool = self._render(storage.pool(session, name), [])
        return {key: pool[key] for key in ("name", "driver", "description", "config")}

    def etag(self, pool: StoragePool) -> str:
        """Return the tag of a pool as it was read."""
        return etag.etag(*_tagged(pool))

    def _render(self, pool: models.StoragePool, users: Users) -> StoragePool:
        return {
            "config": {"source": self._paths.pool(pool.name), **pool.config},
            "description": pool.description,
            "name": pool.name,
            "driver": pool.driver,
            "used_by": sorted(_url(pool.name, *user) for user in users),
            "status": "Unavailable" if pool.name in self._broken else "Created",
            "locations": ["none"],
        }

    def create(
        self, name: str, driver: str, config: Mapping[str, str] | None = None, description: str = ""
    ) -> StoragePool:
        """Make a pool.

        Raises:
            BadRequest: a malformed name, an unknown driver or key, a source that cannot be used.
            Conflict: the name is taken.
        """
        config = check_pool(name, driver, config or {})
        if source := config.get("source"):
            config["volatile.initial_source"] = source
        if name in self.names():
            raise Conflict("The storage pool already exists")
        for place in (self._paths.pool(name), self._paths.disk(name)):
            if os.path.lexists(place):  # what fails from here on removes both
                raise Conflict(
                    f"{place!r} is there already, and is no pool that this server knows",
                    hint="see pylxc admin recover, or move it away",
                )
        row = models.StoragePool(name=name, driver=driver, config=config, description=description, state="creating")
        try:
            with self._db.transaction() as session:
                session.add(row)
        except IntegrityError:
            raise Conflict("The storage pool already exists") from None
        try:
            made = self._load(row)
            chosen = made.create()
        except BaseException:
            self._remove(row, made=False)
            raise
        try:
            _check_default(made, config)
        except BaseException:
            self._remove(row)
            raise
        with self._db.transaction() as session:
            row = storage.pool(session, name, state=None)
            row.config = {**row.config, **chosen}
            row.state = "created"
        self._events.lifecycle("storage-pool-created", f"/1.0/storage-pools/{quote(name)}", project="")
        return self.get(name)

    def find(self, name: str, driver: str, config: Mapping[str, str], revert: Reverter) -> dict[str, str]:
        """Bring into reach a pool that is there and has no row; return its configuration.

        Args:
            name: what it was called.
            driver: its driver.
            config: what is known of its configuration; `source` as when it was created.
            revert: undoes it.

        Raises:
            BadRequest: a malformed name, an unknown driver or key, or no pool is there.
        """
        config = check_pool(name, driver, config)
        return config | registry.load(driver, self._paths.pool(name), config).adopt(revert)

    def keep(self, name: str, driver: str, config: Mapping[str, str], description: str) -> None:
        """Give a pool that was found a row, and take it into use; raises Unavailable when that fails."""
        config = check_pool(name, driver, config)
        row = models.StoragePool(name=name, driver=driver, config=config, description=description, state="created")
        opened = self._load(row)
        opened.open()
        with self._db.transaction() as session:
            session.add(row)
        self._drivers[name] = opened
        # Images are unpacked anew when they are wanted; nobody knows whether these are whole.
        with suppress(FileNotFoundError):
            for fingerprint in os.listdir(opened.path("images")):
                opened.delete_volume(f"images/{fingerprint}")
        self._sweeper.add(opened)

    def update(
        self,
        name: str,
        config: Mapping[str, str] | None,
        description: str | None,
        *,
        patch: bool = False,
        if_match: str | None = None,
    ) -> None:
        """Replace a pool's configuration and description; with `patch` only what is given.

        Raises:
            BadRequest: an unknown or malformed key, or one that cannot change, or not in this way.
            NotSupported: a default size for volumes of a pool that cannot limit them.
            PreconditionFailed: `if_match` is of another state.
        """
        with self._changing:
            with self._db.reading() as session:
                row = storage.pool(session, name)
            etag.check(if_match, *_tagged(self._render(row, [])))
            new = self._changed(row, {**(row.config if patch else {}), **(config or {})})
            if new != row.config:
                self._reconfigure(row, new)
            with self._db.transaction() as session:
                row = storage.pool(session, name)
                row.config = new
                if description is not None or not patch:
                    row.description = description or ""
        self._events.lifecycle("storage-pool-updated", f"/1.0/storage-pools/{quote(name)}", project="")

    def _reconfigure(self, row: models.StoragePool, new: Mapping[str, str]) -> None:
        if row.name in self._broken and new.get("size") == row.config.get("size"):
            self._drivers.pop(row.name, None)  # what is changed may be what keeps it from being mounted
            return
        driver = self.driver(row.name)
        _check_default(driver, new)
        driver.update(new)

    def _changed(self, row: models.StoragePool, wanted: Mapping[str, str]) -> dict[str, str]:
        """Return a pool's configuration as it is to be; raises BadRequest."""
        new = dict(wanted)
        if new.get("source") == self._paths.pool(row.name) and "source" not in row.config:
            del new["source"]  # what `get` shows comes back
        _table(row.driver).validate(new)
        for key in ("source", "volatile.initial_source"):
            if new.setdefault(key, row.config.get(key, "")) != row.config.get(key, ""):
                raise BadRequest(f"Storage pool key {key!r} cannot be changed")
        if row.config.get("size"):
            new["size"] = new.get("size") or row.config["size"]
        return {key: value for key, value in new.items() if value != ""}

    def delete(self, name: str) -> None:
        """Delete a pool, with the images' volumes in it.

        Raises:
            BadRequest: something else is in it, or a profile names it.
        """
        with self._db.transaction() as session:
            row = storage.pool(session, name)
            users = storage.users(session).get(name, [])
            if any(kind != "image" for kind, _, _ in users):
                raise BadRequest("The storage pool is currently in use")
            row.state = "deleting"
        self._remove(row)
        self._broken.discard(name)
        self._drivers.pop(name, None)
        self._events.lifecycle("storage-pool-deleted", f"/1.0/storage-pools/{quote(name)}", project="")

    def _remove(self, row: models.StoragePool, *, made: bool = True) -> None:
        if made:
            self._sweeper.finish()
            self._load(row).delete()
        with self._db.transaction() as session:
            session.execute(delete(models.StorageVolume).where(models.StorageVolume.storage_pool_id == row.id))
            session.execute(delete(models.StoragePool).where(models.StoragePool.id == row.id))

    def resources(self, name: str) -> StoragePoolResources:
        """Return a pool's space and inodes."""
        found = self.driver(name).resources()
        return {
            "space": {"used": found.space_used, "total": found.space_total},
            "inodes": {"used": found.inodes_used, "total": found.inodes_total},
        }

    def driver(self, name: str) -> StorageDriver:
        """Return the driver of a created pool.

        Raises:
            NotFound: there is no such pool.
            Unavailable: it cannot be used, now no more than at start.
        """
        with self._db.reading() as session:
            pool = storage.pool(session, name)
        driver = self._drivers.get(name) or self._load(pool)
        if name in self._broken:
            with self._guard:
                self._reopen(name, driver)
        return self._drivers.setdefault(name, driver)

    def _reopen(self, name: str, driver: StorageDriver) -> None:
        if name not in self._broken:
            return  # somebody else was faster
        try:
            driver.open()
        except PylxcError as error:
            raise Unavailable(f"Storage pool {name!r} is unavailable: {error.message}", hint=error.hint) from error
        self._broken.discard(name)
        log.info("Storage pool %s can be used again", name)
        self._sweeper.add(driver)
        threading.Thread(target=self._welcome, args=(name,), name=f"return of {name}", daemon=True).start()

    def _welcome(self, name: str) -> None:
        self.volumes.settle_rest()
        for call in self.on_return:
            call(name)

    def is_available(self, name: str) -> bool:
        """Tell whether a pool can be used, as far as was seen; a look at it brings none back."""
        return name not in self._broken

    def _load(self, pool: models.StoragePool) -> StorageDriver:
        return registry.load(pool.driver, self._paths.pool(pool.name), pool.config)

    def has_instant_copies(self, name: str) -> bool:
        """Tell whether a copy of a volume of a pool takes no time and is of one moment; see `Info`."""
        return self.driver(name).info.has_instant_copies


def check_pool(name: str, driver: str, config: Mapping[str, str]) -> dict[str, str]:
    """Return a pool's configuration without what is set to nothing; raises BadRequest for what no pool can have."""
    validate.object_name(name, "storage pool")
    if len(name) > 64 or any(c.isspace() for c in name):
        raise BadRequest(f"Invalid storage pool name {name!r}: at most 64 characters, no spaces")
    config = {key: value for key, value in config.items() if value != ""}
    _table(driver).validate(config)
    return config


def _table(driver: str) -> Table:
    if driver not in registry.names() or driver not in POOLS:
        raise BadRequest(f"Unknown storage driver {driver!r}", hint=f"one of {', '.join(registry.names())}")
    return POOLS[driver]


def _check_default(driver: StorageDriver, config: Mapping[str, str]) -> None:
    if units.parse_bytes(config.get("volume.size", "0")):
        driver.require_sizes()


def _tagged(pool: StoragePool) -> tuple[object, ...]:
    return pool["name"], pool["driver"], pool["config"]


def _url(pool: str, kind: str, project: str, name: str) -> str:
    paths = {
        "container": f"/1.0/instances/{quote(name)}",
        "image": f"/1.0/images/{name}",
        "profile": f"/1.0/profiles/{quote(name)}",
        "custom": f"/1.0/storage-pools/{quote(pool)}/volumes/custom/{quote(name)}",
    }
    return paths[kind] + ("" if project == "default" else f"?project={quote(project)}")
