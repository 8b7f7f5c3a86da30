"""Set a server up: storage, network and default profile, in one step that happens whole or not at all."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from functools import partial

from pylxc.drivers.storage import choice
from pylxc.errors import BadRequest, NotFound, PylxcError
from pylxc.revert import Reverter
from pylxc.services import builtin_profiles
from pylxc.services.networks.service import Networks
from pylxc.services.profiles import Profiles
from pylxc.services.projects.service import Projects
from pylxc.services.server import Server
from pylxc.services.storage.service import StoragePools
from pylxc.wire.server import (
    InitAnswer,
    InitPost,
    Preseed,
    PreseedNetwork,
    PreseedProfile,
    PreseedProject,
    PreseedStoragePool,
)

log = logging.getLogger(__name__)

POOL = "default"
BRIDGE = "pylxcbr{}"
"""The first number is taken that neither a network nor an interface of the host has."""


class Initialise:
    """`pylxc admin init`, and what happens by itself when the first instance is made. Thread-safe."""

    def __init__(
        self, server: Server, storage: StoragePools, networks: Networks, profiles: Profiles, projects: Projects
    ) -> None:
        self._server = server
        self._storage = storage
        self._networks = networks
        self._profiles = profiles
        self._projects = projects
        self._lock = threading.Lock()

    def run(self, body: InitPost) -> InitAnswer:
        """Do what a POST of /1.0/pylxc/init asks for.

        Raises:
            BadRequest: it asks for none of the three ways, or for more than one.
            PylxcError: as `auto`, `minimal` and `preseed`.
        """
        wanted = [way for way in ("auto", "minimal") if body.get(way)] + (["preseed"] if "preseed" in body else [])
        if len(wanted) != 1:
            raise BadRequest("One of auto, minimal and preseed is wanted")
        if wanted == ["auto"]:
            return {"storage": self.auto()}
        if wanted == ["minimal"]:
            return {"storage": self.minimal()}
        self.preseed(body["preseed"])
        return {"storage": ""}

    def auto(self) -> str:
        """Make what a server without a storage pool lacks: pool, bridge, default profile. Otherwise do nothing.

        Returns:
            One line about the pool that was made: what it is, and why; "" when nothing was done.

        Raises:
            PylxcError: one of them cannot be made; then none is.
        """
        return self._first_use(network=True)

    def minimal(self) -> str:
        """Like `auto`, without the bridge."""
        return self._first_use(network=False)

    def preseed(self, preseed: Preseed) -> None:
        """Bring everything that `preseed` names into being, or change it where it is there already.

        Configuration is merged key by key and devices by name, as LXD has it.

        Raises:
            PylxcError: one of them is refused; then everything is as it was before.
        """
        with self._lock, Reverter() as revert:
            self._apply(preseed, revert)
            revert.success()

    def _first_use(self, *, network: bool) -> str:
        with self._lock, Reverter() as revert:
            if self._storage.names():
                return ""
            values, preseed = {"pool": POOL}, Preseed()
            if network:
                taken = set(self._networks.names())
                bridge = next(name for name in map(BRIDGE.format, itertools.count()) if name not in taken)
                preseed["networks"] = [{"name": bridge, "type": "bridge"}]
                values["network"] = bridge
            devices = builtin_profiles.devices("default", values)
            there = self._profiles.get("default", "default")[0]["devices"]
            missing = {name: device for name, device in devices.items() if name not in there}
            preseed["profiles"] = [{"name": "default", "devices": missing}]
            log.info("Setting up storage%s and the default profile", " and network" if network else "")
            told = self._first_pool(revert)
            log.info("%s", told)
            self._apply(preseed, revert)
            revert.success()
        return told

    def _first_pool(self, revert: Reverter) -> str:
        """Make the best pool that the host can have, and return a line about it."""
        path = self._storage.place(POOL)
        reason = choice.obstacle(os.path.dirname(path))
        for each in choice.choices(path, loop=not reason):
            try:
                self._storage.create(POOL, each.driver, each.config)
            except PylxcError as error:
                log.warning("The first storage pool cannot be %s: %s", each.driver, error)
                reason = f"{each.driver} failed ({error.message})"
            else:
                break
        else:
            each = choice.last(reason)
            self._storage.create(POOL, each.driver, each.config)
        revert.add(self._storage.delete, POOL)
        return f"Storage pool {POOL} is {each.reason}"

    def _apply(self, preseed: Preseed, revert: Reverter) -> None:
        if config := preseed.get("config"):
            before = self._server.config()
            self._server.merge(config)
            revert.add(self._server.restore, before)
        for project in preseed.get("projects", []):
            self._project(project, revert)
        for pool in preseed.get("storage_pools", []):
            self._pool(pool, revert)
        for network in preseed.get("networks", []):
            self._network(network, revert)
        for profile in preseed.get("profiles", []):
            self._profile(profile, revert)

    def _project(self, wanted: PreseedProject, revert: Reverter) -> None:
        name = _name(wanted, "project")
        try:
            before, _ = self._projects.get(name)
        except NotFound:
            self._projects.create(wanted)
            revert.add(self._projects.delete, name)
            return
        self._projects.merge(name, wanted, None)
        revert.add(self._projects.replace, name, before, None)

    def _pool(self, wanted: PreseedStoragePool, revert: Reverter) -> None:
        name = _name(wanted, "storage pool")
        config, description = wanted.get("config", {}), wanted.get("description")
        try:
            before = self._storage.get(name)
        except NotFound:
            self._storage.create(name, wanted.get("driver", ""), config, description or "")
            revert.add(self._storage.delete, name)
            return
        if wanted.get("driver", before["driver"]) != before["driver"]:
            raise BadRequest(f"Storage pool {name!r} is of another driver: {before['driver']}")
        self._storage.update(name, config, description, patch=True)
        revert.add(self._storage.update, name, before["config"], before["description"])

    def _network(self, wanted: PreseedNetwork, revert: Reverter) -> None:
        name = _name(wanted, "network")
        config, description = wanted.get("config", {}), wanted.get("description")
        project = wanted.get("project") or "default"
        try:
            before = self._networks.get(name, project)
        except NotFound:
            self._networks.create(name, wanted.get("type") or "bridge", config, description or "", project)
            revert.add(self._networks.delete, name, project)
            return
        self._networks.update(name, config, description, project=project, patch=True)
        revert.add(partial(self._networks.update, name, before["config"], before["description"], project=project))

    def _profile(self, wanted: PreseedProfile, revert: Reverter) -> None:
        name, project = _name(wanted, "profile"), wanted.get("project") or "default"
        try:
            before, _ = self._profiles.get(project, name)
        except NotFound:
            self._profiles.create(project, wanted)
            revert.add(self._profiles.delete, project, name)
            return
        self._profiles.merge(project, name, wanted, None)
        revert.add(self._profiles.replace, project, name, before, None)


def _name(wanted: PreseedNetwork | PreseedStoragePool | PreseedProfile | PreseedProject, kind: str) -> str:
    name = wanted.get("name", "")
    if not name:
        raise BadRequest(f"Invalid preseed: a {kind} has no name")
    return name
