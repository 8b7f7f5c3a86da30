"""Devices of a running container: brought in line with its configuration, or all as it was."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from pylxc.db import instances
from pylxc.db.engine import Database
from pylxc.drivers.device import registry
from pylxc.drivers.device.driver import Context
from pylxc.errors import PylxcError
from pylxc.paths import Paths, split_key
from pylxc.revert import Reverter
from pylxc.runtime import hotplug
from pylxc.runtime.handle import Running, Runtime
from pylxc.services.instances import attached as had
from pylxc.services.instances.attached import Attached
from pylxc.services.instances.devices import DeviceManager, Prepared
from pylxc.services.instances.expand import Record, is_of_run, load
from pylxc.services.instances.locks import InstanceLocks
from pylxc.services.instances.sources import SourceWatch

log = logging.getLogger(__name__)

Devices = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Changes:
    """What has to be done about which devices; one that is in `taken` and in `given` is given anew."""

    taken: list[str]
    given: list[str]
    updated: list[str]

    def __bool__(self) -> bool:
        """Tell whether there is anything to be done."""
        return bool(self.taken or self.given or self.updated)


class Hotplug:
    """Changes devices of running containers; the caller holds the instance's lock. Thread-safe.

    Args:
        on_follow: called with an instance when one of its devices has come or gone by itself.
    """

    def __init__(
        self,
        db: Database,
        paths: Paths,
        runtime: Runtime,
        devices: DeviceManager,
        locks: InstanceLocks,
        on_follow: Callable[[Record], None],
    ) -> None:
        self._db = db
        self._paths = paths
        self._runtime = runtime
        self._devices = devices
        self._locks = locks
        self._sources = SourceWatch(self._follow)
        self._on_follow = on_follow

    def close(self) -> None:
        """Take no notice any more of what comes and goes."""
        self._sources.close()

    def apply(self, wanted: Record) -> None:
        """Give a running container the devices of a record in place of those that it has.

        Raises:
            PylxcError: one cannot be had or let go; the container has what it had.
        """
        running = self._runtime.get(wanted.key)
        if running is None:
            return
        with self._db.reading() as session:
            has = had.from_json(instances.run_facts(session, wanted.id)[1])
        devices = had.configured(has)
        try:
            if changes := compare(has, wanted.expanded_devices):
                change = _Change(self._db, self._paths, self._runtime, self._devices, wanted, running, has)
                change.make(changes)
            devices = wanted.expanded_devices
        finally:
            self.watch(wanted.key, devices)

    def watch(self, key: str, devices: Devices) -> None:
        """Notice from now on what comes and goes that a running container can do without; it has these devices."""
        sources = (registry.find(device).optional_source(device) for device in devices.values())
        self._sources.watch(key, {source for source in sources if source})

    def _follow(self, key: str) -> None:
        """Give and take what has come and gone on the host; raises Conflict when the instance is busy."""
        if self._runtime.get(key) is None:
            self._sources.watch(key, ())
            return
        project, name = split_key(key)
        with self._db.reading() as session:
            found = load(session, project, name)
            has = had.from_json(instances.run_facts(session, found.id)[1])
        if not compare(has, found.expanded_devices):  # most of what happens is of no concern, and no reason to wait
            return
        with self._locks.hold(key, "update"):
            with self._db.reading() as session:
                found = load(session, project, name)
            self.apply(found)
            if self._runtime.get(key) is not None:
                self._on_follow(found)

    def resume(self, found: Record) -> None:
        """Take up again what the daemon itself does for the devices of a container that has run on without it."""
        running = self._runtime.get(found.key)
        with self._db.reading() as session:
            has = had.from_json(instances.run_facts(session, found.id)[1])
        for name, each in has.items():
            config = {**found.expanded_config, **each.volatile}
            pid = running.pid if running else 0
            context = Context(name=name, device=each.device, config=config, instance=found.key, pid=pid)
            try:
                self._devices.resume(found.project, found.name, context)
            except PylxcError as error:
                log.error("Failed taking up device %s of instance %s: %s", name, found.key, error)


def compare(has: had.Attachments, wanted: Devices) -> Changes:
    """Return what brings a container from the devices that it has to those that are wanted."""
    taken, given, updated = [], [], []
    before = {name: each.device for name, each in has.items()}
    for name, each in has.items():
        driver = registry.find(each.device)
        changed = _changed(each.device, wanted.get(name, {}))
        follows = driver.follows(each.device, before) == driver.follows(each.device, wanted)
        is_there = driver.presence(each.device) == each.source
        if name not in wanted or not each.settled or not changed <= driver.live or not follows or not is_there:
            taken.append(name)
        elif changed:
            updated.append(name)
    given = [name for name in wanted if name not in has or name in taken]
    return Changes(taken, given, updated)


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    keys = {key for key in before.keys() | after.keys() if before.get(key, "") != after.get(key, "")}
    return {key for key in keys if not key.startswith("user.")}


class _Change:
    """One change of one container, step by step.

    What the container may have is written down before each step: what a daemon that died leaves unsettled, the
    next one takes away, and gives anew when it is wanted.
    """

    def __init__(
        self,
        db: Database,
        paths: Paths,
        runtime: Runtime,
        devices: DeviceManager,
        wanted: Record,
        running: Running,
        has: had.Attachments,
    ) -> None:
        self._db = db
        self._run_dir = paths.instance_run(wanted.key)
        self._runtime = runtime
        self._devices = devices
        self._wanted = wanted
        self._project = wanted.project
        self._name = wanted.name
        self._pid = running.pid
        self._has = dict(has)

    def make(self, changes: Changes) -> None:
        """Make the changes; raises like `Hotplug.apply`."""
        concerned = [self._wanted.expanded_devices[name] for name in changes.given]
        concerned += [self._has[name].device for name in changes.taken]
        with self._devices.using_volumes(self._project, concerned):
            self._make(changes)

    def _make(self, changes: Changes) -> None:
        fresh = {key: value for key, value in self._wanted.expanded_config.items() if not is_of_run(key)}
        prepared = self._prepare(self._wanted.expanded_devices, fresh, changes.given)
        new = had.of(prepared)
        with Reverter() as revert:
            revert.add(lambda: self._write(self._has))
            self._doubt(changes.taken, new)
            for name in changes.taken:
                revert.add(self._give_back, name, self._has[name])
                self._take(name)
            self._doubt((), new)
            for name in changes.given:
                self._give(prepared.only(name), new[name])
                revert.add(self._take, name)
            for name in changes.updated:
                before = self._has[name]
                revert.add(self._update, name, before.device)
                self._update(name, self._wanted.expanded_devices[name])
            self._write(self._has)
            revert.success()

    def _prepare(self, devices: Devices, config: Mapping[str, str], names: Collection[str]) -> Prepared:
        return self._devices.start(self._project, self._name, devices, config, names)

    def _doubt(self, taken: Iterable[str], new: had.Attachments) -> None:
        """Write down which devices may be there in part from now on."""
        doubtful = {name: each for name, each in new.items() if name not in self._has}
        doubtful |= {name: self._has[name] for name in taken}
        if doubtful:
            self._write(self._has | {name: replace(each, settled=False) for name, each in doubtful.items()})

    def _take(self, name: str) -> None:
        each = self._has.get(name)
        if each is None:
            return
        if each.targets:
            hotplug.unplug(self._runtime.spawn, self._run_dir, each.targets)
        self._devices.detach(self._project, self._name, self._context(name, each))
        self._allow({other: it for other, it in self._has.items() if other != name})

    def _give(self, prepared: Prepared, each: Attached) -> None:
        (name,) = prepared.names
        with Reverter() as revert:
            revert.add(self._allow, dict(self._has))
            self._allow(self._has | {name: each})
            self._devices.attach(prepared, self._pid)
            revert.add(self._devices.detach, self._project, self._name, self._context(name, each))
            if each.targets:
                hotplug.plug(self._runtime.spawn, self._run_dir, prepared.mounts, prepared.nodes)
                revert.add(hotplug.unplug, self._runtime.spawn, self._run_dir, each.targets)
            self._devices.enter(prepared, self._pid)
            revert.success()

    def _give_back(self, name: str, each: Attached) -> None:
        if name not in self._has:
            config = {**self._wanted.expanded_config, **each.volatile}
            self._give(self._prepare({name: each.device}, config, [name]), each)

    def _update(self, name: str, device: Mapping[str, str]) -> None:
        before = self._has[name]
        after = replace(before, device=dict(device))
        self._devices.update(self._project, self._name, self._context(name, before), self._context(name, after))
        if mount := registry.find(device).adjusted(before.device, device):
            hotplug.adjust(self._runtime.spawn, self._run_dir, mount)
        self._has[name] = after

    def _context(self, name: str, each: Attached) -> Context:
        config = {**self._wanted.expanded_config, **each.volatile}
        return Context(name=name, device=each.device, config=config, instance=self._wanted.key, pid=self._pid)

    def _allow(self, after: had.Attachments) -> None:
        """Have the container use the device nodes of `after`, which it has from now on."""
        before, self._has = self._has, dict(after)
        if (old := had.nodes_of(before.values())) != (new := had.nodes_of(after.values())):
            self._runtime.allow_devices(self._wanted.key, old, new)

    def _write(self, has: had.Attachments) -> None:
        with self._db.transaction(outlives_host=False) as session:
            config, _ = instances.run_facts(session, self._wanted.id)
            facts = {key: value for key, value in had.volatile(has.values()).items() if is_of_run(key)}
            others = {key: value for key, value in config.items() if not is_of_run(key)}
            instances.set_run_facts(session, self._wanted.id, others | facts, had.to_json(has))
        had.save(self._run_dir, has)
