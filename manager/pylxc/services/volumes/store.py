"""What every change of custom volumes needs: their rows, their trees, and who may do what at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

from sqlalchemy.orm import Session

from pylxc import units
from pylxc.config.storage import VOLUME
from pylxc.db import models, projects, storage, volumes
from pylxc.db.engine import Database
from pylxc.errors import BadRequest, Conflict, NotFound
from pylxc.revert import Reverter
from pylxc.services.events import EventBus
from pylxc.services.storage.listing import url
from pylxc.services.storage.locks import NamedLocks
from pylxc.services.storage.places import Place
from pylxc.services.storage.service import StoragePools

_BUSY_SECONDS = 20.0
"""How long the start of an instance waits for a change of a volume that it has."""

MAPPING = ("security.shifted", "security.unmapped")
"""Keys that say how ids are mapped; one of them at most."""


class VolumeStore:
    """Custom volumes' rows and trees; thread-safe.

    A volume's row is there before its tree and goes after it, and so is a snapshot's: what a killed daemon leaves has a
    row whose state says what to do with it. Whoever changes a tree or its place holds the volume alone, whoever reads
    it shares it. That an instance runs with a volume is told by the instance's row, written while the volume is shared.

    Attributes:
        db: where the rows are.
        trees: what the pools hold.
        keep_still: pauses instances, by project and name, while the block runs; set once there are instances.
    """

    def __init__(self, db: Database, storage: StoragePools, events: EventBus) -> None:
        self.db = db
        self.trees = storage.trees
        self.keep_still: Callable[[Iterable[tuple[str, str]]], AbstractContextManager[None]] = lambda _: nullcontext()
        self._storage = storage
        self._volumes = storage.volumes
        self._events = events
        self._locks = NamedLocks()

    # Finding

    def place(self, session: Session, project: str, pool: str, name: str) -> Place:
        """Return where the volume is, or would be, that `project` calls `name`; raises NotFound for project or pool."""
        storage.pool(session, pool)
        return Place(pool, projects.scope_name(session, project, "storage.volumes"), name, kind="custom")

    def find(self, project: str, pool: str, name: str) -> Place:
        """Return where a volume is that `project` calls `name`.

        Raises:
            NotFound: there is no such project, pool or volume.
        """
        with self.db.reading() as session:
            place = self.place(session, project, pool, name)
            load(session, place)
        return place

    def row(self, place: Place) -> models.StorageVolume:
        """Return a created volume's row; raises NotFound."""
        with self.db.reading() as session:
            return load(session, place)

    def snapshots(self, place: Place) -> list[models.VolumeSnapshot]:
        """Return a volume's snapshots, oldest first; raises NotFound."""
        with self.db.reading() as session:
            row = load(session, place)
            return volumes.snapshots(session, [row.id]).get(row.id, [])

    # At the same time

    @contextmanager
    def sharing(self, places: Iterable[Place]) -> Iterator[None]:
        """Share volumes while the block runs; raises Conflict when somebody who changes one takes long."""
        with ExitStack() as stack:
            for place in sorted(set(places), key=_key):
                try:
                    stack.enter_context(self._locks.shared(_key(place), _BUSY_SECONDS))
                except TimeoutError:
                    raise Conflict(f"Storage volume {place.name!r} is being changed", hint="try again later") from None
            yield

    @contextmanager
    def holding(self, *alone: Place, shared: Iterable[Place] = ()) -> Iterator[None]:
        """Hold volumes while the block runs, waiting for others; in one order, so that nobody waits for ever."""
        wanted = {_key(place): False for place in shared} | {_key(place): True for place in alone}
        with ExitStack() as stack:
            for key, is_alone in sorted(wanted.items()):
                stack.enter_context(self._locks.exclusive(key) if is_alone else self._locks.shared(key))
            yield

    def refuse_running(self, place: Place, complaint: str) -> None:
        """Raise BadRequest if an instance runs with a volume, or is about to; the caller holds the volume alone."""
        with self.db.reading() as session:
            refuse_attached(session, place, complaint)

    @contextmanager
    def still(self, place: Place) -> Iterator[None]:
        """Keep what runs with a volume from changing it while it is copied, unless a copy is of one moment anyway.

        Raises:
            Conflict: an instance that would have to pause is busy.
        """
        if place.snapshot or self._storage.has_instant_copies(place.pool):
            yield
            return
        with self.db.reading() as session:
            running = volumes.attached(session, name_of(place))
        with self.keep_still(running):
            yield

    # Trees and rows

    @contextmanager
    def made(
        self, place: Place, description: str, config: models.Config, *, takes: bool = True
    ) -> Iterator[models.StorageVolume]:
        """Give the row of a volume that the block makes and sets to "created"; when it fails, nothing of it is left.

        Args:
            place: where it will be.
            description: the volume's.
            config: likewise.
            takes: False when it is to take the place of another volume of its project.

        Raises:
            Conflict: the name is taken.
            Forbidden: the project does not allow another volume.
        """
        row = self._volumes.add(place, description=description, config=config, takes=takes)
        with Reverter() as revert:
            revert.add(self.remove, row)
            yield row
            revert.success()

    def finish(self, row: models.StorageVolume) -> None:
        """Have everybody see a volume that is whole."""
        with self.db.transaction() as session:
            storage.set_volume_state(session, row.id, "created")

    def remove(self, row: models.StorageVolume) -> None:
        """Remove a volume with its snapshots, in whatever state."""
        self._volumes.remove(row)

    def require_size(self, pool: str, config: models.Config) -> None:
        """Check that a pool can hold a volume to its size, if it has one; raises NotSupported."""
        if size_of(config):
            self.trees.require_sizes(pool)

    def fit(self, place: Place, config: models.Config) -> None:
        """Give a tree that was just made the size that its volume is to have; raises NotSupported."""
        if size := size_of(config):
            self.trees.set_size(place, size)

    def drop_snapshot(self, place: Place) -> None:
        """Remove a snapshot, in whatever state; the caller holds the volume alone.

        Raises:
            NotFound: there is none.
        """
        with self.db.transaction() as session:
            volume = load(session, place, state=None)  # it may be half made as well
            row = volumes.snapshot(session, volume.id, place.snapshot, state=None)
            row.state = "deleting"
        self.trees.delete(place)
        with self.db.transaction() as session:
            session.delete(session.get_one(models.VolumeSnapshot, row.id))

    def tell(self, verb: str, place: Place, context: dict[str, str] | None = None) -> None:
        """Announce what became of a volume, or of a snapshot."""
        kind = "storage-volume-snapshot" if place.snapshot else "storage-volume"
        source = url(place).partition("?")[0]
        if verb == "created":
            context = {"type": place.kind}
        self._events.lifecycle(f"{kind}-{verb}", source, project=place.project, context=context)


def load(session: Session, place: Place, *, state: str | None = "created") -> models.StorageVolume:
    """Return a custom volume's row in `state` (None for any); raises NotFound."""
    row = storage.volume(session, place.pool, place.project, "custom", place.name, state=state)
    if row is None:
        raise NotFound("Storage volume not found")
    return row


def refuse_attached(session: Session, place: Place, complaint: str) -> None:
    """Raise BadRequest if an instance runs with a volume."""
    if running := volumes.attached(session, name_of(place)):
        raise BadRequest(complaint, hint=f"stop or detach {', '.join(name for _, name in running)}")


def checked(config: models.Config) -> models.Config:
    """Return a volume's configuration after a check, without what is empty, or was noted of another volume.

    Raises:
        BadRequest: an unknown key, a malformed value, or keys that cannot go together.
        NotSupported: the dialect knows a key, and this server does not do it.
    """
    VOLUME.validate(config)
    found = {key: value for key, value in config.items() if value != "" and not key.startswith("volatile.")}
    if all(VOLUME.is_true(found, key) for key in MAPPING):
        raise BadRequest(f"{MAPPING[0]} and {MAPPING[1]} are mutually exclusive")
    return found


def size_of(config: models.Config) -> int:
    """Return the bytes that a volume may take, 0 for no limit."""
    return units.parse_bytes(config.get("size") or "0")


def name_of(place: Place) -> volumes.Name:
    """Return what devices call a volume."""
    return place.pool, place.project, place.name


def place_of(row: models.StorageVolume) -> Place:
    """Return where a custom volume is."""
    return Place(row.pool.name, row.project.name, row.name, kind="custom")


def resources(place: Place) -> dict[str, list[str]]:
    """Return what an operation on a volume names."""
    return {"storage_volumes": [url(place)]}


def _key(place: Place) -> str:
    return f"{place.pool}/{place.project}/{place.name}"
