"""What the guest API says of an instance, and to whom. See: LXD doc dev-lxd."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from pylxc.config.instance import INSTANCE
from pylxc.db.engine import Database
from pylxc.errors import Forbidden, NotAuthorized, NotFound
from pylxc.paths import Paths
from pylxc.runtime.spec import IdMap
from pylxc.services.guests.events import PREFIXES, GuestEvents
from pylxc.services.guests.sockets import Guest, GuestSockets
from pylxc.services.images.service import Images
from pylxc.services.instances.expand import INSTANCE_ID, Record, load
from pylxc.wire.multipart import FilePart


class Guests:
    """The guest API without HTTP; thread-safe. Methods that answer take the guest and the uid of who asks.

    They raise NotAuthorized for somebody who is not the guest's root, Forbidden when the guest may not know, and
    NotFound for what is not there.

    Attributes:
        sockets: where guests connect.
        events: what listeners are told.
    """

    def __init__(self, database: Database, images: Images, paths: Paths) -> None:
        self._database = database
        self._images = images
        self.sockets = GuestSockets(paths)
        self.events = GuestEvents()

    # For the life of instances

    def open(self, found: Record, idmap: IdMap | None) -> None:
        """Make ready for an instance that starts, or runs already.

        Args:
            found: the instance.
            idmap: that it runs with.
        """
        self.sockets.prepare(found.key)
        if _is_allowed(found):
            root = next((r.outside for r in idmap.uids if r.inside == 0), 0) if idmap else 0
            self.sockets.open(Guest(key=found.key, project=found.project, name=found.name, root_uid=root))

    def changed(self, before: Record, after: Record, idmap: IdMap | None) -> None:
        """Follow a change of an instance that runs with `idmap`."""
        if _is_allowed(after):
            self.open(after, idmap)
            self.events.changed(before, after)
        else:
            self.sockets.close(after.key)

    # For the guests

    def about(self, guest: Guest, uid: int) -> dict[str, str]:
        """Return what /1.0 says."""
        found = self._admit(guest, uid)
        return {"api_version": "1.0", "location": os.uname().nodename, "instance_type": found.type}

    def keys(self, guest: Guest, uid: int) -> list[str]:
        """Return the URLs of the configuration keys that the guest may see."""
        config = self._allow(guest, uid).expanded_config
        return [f"/1.0/config/{key}" for key in sorted(config) if key.startswith(PREFIXES)]

    def value(self, guest: Guest, uid: int, key: str) -> str:
        """Return the value of one of them."""
        config = self._allow(guest, uid).expanded_config
        if not key.startswith(PREFIXES):
            raise Forbidden("not authorized")
        if key not in config:
            raise NotFound("not found")
        return config[key]

    def metadata(self, guest: Guest, uid: int) -> str:
        """Return cloud-init's meta-data."""
        found = self._allow(guest, uid)
        instance_id = found.config.get(INSTANCE_ID) or found.name
        own = found.expanded_config.get("user.meta-data", "")
        return f"#cloud-config\ninstance-id: {instance_id}\nlocal-hostname: {found.name}\n{own}"

    def devices(self, guest: Guest, uid: int) -> dict[str, Any]:
        """Return the devices; NICs with their hardware addresses, by which the guest tells them apart."""
        found = self._allow(guest, uid)
        devices = {name: dict(device) for name, device in found.expanded_devices.items()}
        for name, device in devices.items():
            hwaddr = found.config.get(f"volatile.{name}.hwaddr")
            if device.get("type") == "nic" and hwaddr:
                device.setdefault("hwaddr", hwaddr)
        return devices

    def listen(self, guest: Guest, uid: int) -> None:
        """Check that the guest may listen to its events."""
        self._allow(guest, uid)

    def image(self, guest: Guest, uid: int, fingerprint: str) -> Sequence[FilePart]:
        """Return the files of an image, which must be one that anybody could fetch: a public or a cached one."""
        found = self._allow(guest, uid)
        if not INSTANCE.is_true(found.expanded_config, "security.devlxd.images"):
            raise Forbidden("not authorized")
        image = self._images.get("default", fingerprint)
        if not image["public"] and not image["cached"]:
            raise NotFound("Image not found")
        return self._images.export("default", image["fingerprint"])

    def _admit(self, guest: Guest, uid: int) -> Record:
        if uid != guest.root_uid:
            raise NotAuthorized("Access denied for non-root user")
        with self._database.reading() as session:
            return load(session, guest.project, guest.name)

    def _allow(self, guest: Guest, uid: int) -> Record:
        found = self._admit(guest, uid)
        if not _is_allowed(found):
            raise Forbidden("not authorized")
        return found


def _is_allowed(found: Record) -> bool:
    return INSTANCE.is_true(found.expanded_config, "security.devlxd")
