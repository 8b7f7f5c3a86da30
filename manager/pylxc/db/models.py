"""The tables. Names and columns follow LXD's terms; configuration and devices are JSON maps of strings.

Rows that are being made carry `state` "creating" and rows that are being removed "deleting"; everything else sees only
"created" rows, and the daemon's start-up finishes or undoes the others. Times are UTC.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from sqlalchemy import JSON, DateTime, ForeignKey, MetaData, String, TypeDecorator, UniqueConstraint
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

Config = dict[str, str]
Devices = dict[str, dict[str, str]]
Ports = list[dict[str, str]]
Clock = Callable[[], dt.datetime]
"""Returns the time, in UTC and aware of it: `now`, or what a test takes for it."""


def now() -> dt.datetime:
    """Return the time, in UTC and aware of it."""
    return dt.datetime.now(dt.UTC)


class UtcDateTime(TypeDecorator[dt.datetime]):
    """An aware time: stored as UTC, read back aware (SQLite forgets the zone)."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Store as naive UTC."""
        return None if value is None else value.astimezone(dt.UTC).replace(tzinfo=None)

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Read as aware UTC."""
        return None if value is None else value.replace(tzinfo=dt.UTC)


class Base(DeclarativeBase):
    """Declarative base; constraint names are fixed so that Alembic can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        dict[str, Any]: JSON,
        Config: JSON,
        Devices: JSON,
        Ports: JSON,
        list[str]: JSON,
        dt.datetime: UtcDateTime,
    }


class Project(Base):
    """A namespace for what LXD scopes by project; `new_name` is set while a rename is under way."""

    __tablename__ = "projects"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String, unique=True)
    new_name: Mapped[str] = mapped_column(default="", server_default="")
    description: Mapped[str] = mapped_column(default="")
    config: Mapped[Config] = mapped_column(default=dict)


class Profile(Base):
    """Configuration and devices that instances share."""

    __tablename__ = "profiles"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    config: Mapped[Config] = mapped_column(default=dict)
    devices: Mapped[Devices] = mapped_column(default=dict)
    project: Mapped[Project] = relationship(lazy="joined")


class SeededProfile(Base):
    """A built-in profile that this server was given, and the entity tag that it had: who deletes one is rid of it."""

    __tablename__ = "seeded_profiles"
    name: Mapped[str] = mapped_column(primary_key=True)
    etag: Mapped[str]


class InstanceProfile(Base):
    """Which profiles an instance has, in order."""

    __tablename__ = "instances_profiles"
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    profile_id: Mapped[int] = mapped_column(ForeignKey("profiles.id"))
    profile: Mapped[Profile] = relationship(lazy="joined")


class Instance(Base):
    """A container.

    `new_name` is set while a rename is under way, `restoring` while it goes back to a snapshot; `attached` are the
    devices that it has running.
    """

    __tablename__ = "instances"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    new_name: Mapped[str] = mapped_column(default="")
    restoring: Mapped[str] = mapped_column(default="")
    state: Mapped[str] = mapped_column(default="creating")
    type: Mapped[str] = mapped_column(default="container")
    architecture: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    config: Mapped[Config] = mapped_column(default=dict)
    devices: Mapped[Devices] = mapped_column(default=dict)
    attached: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    ephemeral: Mapped[bool] = mapped_column(default=False)
    stateful: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[dt.datetime] = mapped_column(default=now)
    last_used_at: Mapped[dt.datetime | None]
    project: Mapped[Project] = relationship(lazy="joined")
    profile_links: Mapped[list[InstanceProfile]] = relationship(
        order_by=InstanceProfile.position, lazy="selectin", cascade="all, delete-orphan"
    )

    @property
    def profiles(self) -> list[Profile]:
        """The profiles in order of expansion."""
        return [link.profile for link in self.profile_links]


class Snapshot(Base):
    """An instance's configuration and tree as they were; its profiles are kept by name.

    `new_name` is set while a rename is under way.
    """

    __tablename__ = "instances_snapshots"
    __table_args__ = (UniqueConstraint("instance_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"))
    name: Mapped[str]
    new_name: Mapped[str] = mapped_column(default="")
    state: Mapped[str] = mapped_column(default="creating")
    architecture: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    config: Mapped[Config] = mapped_column(default=dict)
    devices: Mapped[Devices] = mapped_column(default=dict)
    profiles: Mapped[list[str]] = mapped_column(default=list)
    ephemeral: Mapped[bool] = mapped_column(default=False)
    stateful: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[dt.datetime] = mapped_column(default=now)
    expires_at: Mapped[dt.datetime | None]
    instance: Mapped[Instance] = relationship()


class Backup(Base):
    """A backup of an instance or of a custom volume: a file. It is there when `state` is "created".

    `alone` is without snapshots, `optimized` in the form of the pool's driver.
    """

    __tablename__ = "backups"
    __table_args__ = (UniqueConstraint("instance_id", "name"), UniqueConstraint("storage_volume_id", "name"))
    id: Mapped[int] = mapped_column(primary_key=True)
    instance_id: Mapped[int | None] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"))
    storage_volume_id: Mapped[int | None] = mapped_column(ForeignKey("storage_volumes.id", ondelete="CASCADE"))
    name: Mapped[str]
    state: Mapped[str] = mapped_column(default="creating")
    alone: Mapped[bool] = mapped_column(default=False)
    optimized: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[dt.datetime] = mapped_column(default=now)
    expires_at: Mapped[dt.datetime | None]


class Image(Base):
    """An image in the store. `source` says where it is refreshed from: server, protocol, alias, certificate.

    `given_properties` are those that the image came with: where `properties` differ from them, a user has spoken.
    """

    __tablename__ = "images"
    __table_args__ = (UniqueConstraint("project_id", "fingerprint"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    fingerprint: Mapped[str] = mapped_column(index=True)
    filename: Mapped[str] = mapped_column(default="")
    type: Mapped[str] = mapped_column(default="container")
    architecture: Mapped[str]
    size: Mapped[int]
    public: Mapped[bool] = mapped_column(default=False)
    cached: Mapped[bool] = mapped_column(default=False)
    auto_update: Mapped[bool] = mapped_column(default=False)
    properties: Mapped[Config] = mapped_column(default=dict)
    given_properties: Mapped[Config] = mapped_column(default=dict, server_default="{}")
    profiles: Mapped[list[str]] = mapped_column(default=list)
    source: Mapped[Config] = mapped_column(default=dict)
    created_at: Mapped[dt.datetime | None]
    uploaded_at: Mapped[dt.datetime] = mapped_column(default=now)
    expires_at: Mapped[dt.datetime | None]
    last_used_at: Mapped[dt.datetime | None]
    project: Mapped[Project] = relationship(lazy="joined")


class ImageAlias(Base):
    """A name for an image."""

    __tablename__ = "images_aliases"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"))
    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    image: Mapped[Image] = relationship(lazy="joined")


class StoragePool(Base):
    """A storage pool."""

    __tablename__ = "storage_pools"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    driver: Mapped[str]
    state: Mapped[str] = mapped_column(default="creating")
    description: Mapped[str] = mapped_column(default="")
    config: Mapped[Config] = mapped_column(default=dict)


class StorageVolume(Base):
    """A volume of a pool: `type` is container, image or custom; an image's `name` is its fingerprint.

    Of custom volumes `new_name` is set while a rename is under way, `restoring` while it goes back to a snapshot.
    """

    __tablename__ = "storage_volumes"
    __table_args__ = (UniqueConstraint("storage_pool_id", "project_id", "type", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    storage_pool_id: Mapped[int] = mapped_column(ForeignKey("storage_pools.id"))
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    type: Mapped[str]
    content_type: Mapped[str] = mapped_column(default="filesystem")
    state: Mapped[str] = mapped_column(default="creating")
    new_name: Mapped[str] = mapped_column(default="", server_default="")
    restoring: Mapped[str] = mapped_column(default="", server_default="")
    description: Mapped[str] = mapped_column(default="")
    config: Mapped[Config] = mapped_column(default=dict)
    created_at: Mapped[dt.datetime] = mapped_column(default=now)
    pool: Mapped[StoragePool] = relationship(lazy="joined")
    project: Mapped[Project] = relationship(lazy="joined")


class VolumeSnapshot(Base):
    """A custom volume's configuration and tree as they were; `new_name` is set while a rename is under way."""

    __tablename__ = "storage_volumes_snapshots"
    __table_args__ = (UniqueConstraint("storage_volume_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    storage_volume_id: Mapped[int] = mapped_column(ForeignKey("storage_volumes.id", ondelete="CASCADE"))
    name: Mapped[str]
    new_name: Mapped[str] = mapped_column(default="")
    state: Mapped[str] = mapped_column(default="creating")
    description: Mapped[str] = mapped_column(default="")
    config: Mapped[Config] = mapped_column(default=dict)
    created_at: Mapped[dt.datetime] = mapped_column(default=now)
    expires_at: Mapped[dt.datetime | None]
    volume: Mapped[StorageVolume] = relationship(lazy="joined")


class Network(Base):
    """A managed network."""

    __tablename__ = "networks"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    type: Mapped[str] = mapped_column(default="bridge")
    state: Mapped[str] = mapped_column(default="creating")
    description: Mapped[str] = mapped_column(default="")
    config: Mapped[Config] = mapped_column(default=dict)
    project: Mapped[Project] = relationship(lazy="joined")


class NetworkForward(Base):
    """An address of the host whose ports go to instances on a network."""

    __tablename__ = "networks_forwards"
    id: Mapped[int] = mapped_column(primary_key=True)
    network_id: Mapped[int] = mapped_column(ForeignKey("networks.id", ondelete="CASCADE"))
    listen_address: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str] = mapped_column(default="")
    config: Mapped[Config] = mapped_column(default=dict)
    ports: Mapped[Ports] = mapped_column(default=list)
    network: Mapped[Network] = relationship(lazy="joined")


class ServerConfig(Base):
    """A server configuration key that differs from its default."""

    __tablename__ = "config"
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class Job(Base):
    """When a periodic job last ran to its end."""

    __tablename__ = "jobs"
    name: Mapped[str] = mapped_column(primary_key=True)
    last_ran_at: Mapped[dt.datetime]


class WarningRow(Base):
    """What the operator should know: one row per type and what it is about, an instance or the server (None)."""

    __tablename__ = "warnings"
    id: Mapped[int] = mapped_column(primary_key=True)
    uuid: Mapped[str] = mapped_column(unique=True)
    type: Mapped[str]
    instance_id: Mapped[int | None] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"))
    status: Mapped[str] = mapped_column(default="new")
    count: Mapped[int] = mapped_column(default=1)
    last_message: Mapped[str] = mapped_column(default="")
    first_seen_at: Mapped[dt.datetime] = mapped_column(default=now)
    last_seen_at: Mapped[dt.datetime] = mapped_column(default=now)
    instance: Mapped[Instance | None] = relationship(lazy="joined")


class Certificate(Base):
    """A client that is trusted over the network, by its certificate; a restricted one in its projects only."""

    __tablename__ = "certificates"
    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(unique=True)
    type: Mapped[str]
    name: Mapped[str]
    certificate: Mapped[str]
    restricted: Mapped[bool] = mapped_column(default=False)
    projects: Mapped[list[Project]] = relationship(
        secondary="certificates_projects", lazy="selectin", order_by=Project.name
    )


class CertificateProject(Base):
    """Which projects a restricted certificate is good for."""

    __tablename__ = "certificates_projects"
    certificate_id: Mapped[int] = mapped_column(ForeignKey("certificates.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
