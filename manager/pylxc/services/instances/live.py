"""What a change of its configuration means for an instance that runs."""

from __future__ import annotations

from pylxc.errors import BadRequest
from pylxc.revert import Reverter
from pylxc.runtime.handle import Runtime
from pylxc.services.guests.service import Guests
from pylxc.services.instances import disk_limits, limits
from pylxc.services.instances.allotment import Allotments, load_modules
from pylxc.services.instances.apparmor import AppArmor
from pylxc.services.instances.expand import Record
from pylxc.services.instances.hotplug import Hotplug
from pylxc.services.instances.update import changed_keys


class LiveChanges:
    """Brings running instances in line with their records; thread-safe."""

    def __init__(
        self, runtime: Runtime, allotments: Allotments, apparmor: AppArmor, hotplug: Hotplug, guests: Guests
    ) -> None:
        self._runtime = runtime
        self._allotments = allotments
        self._apparmor = apparmor
        self._hotplug = hotplug
        self._guests = guests

    def apply(self, before: Record, after: Record) -> bool:
        """Bring an instance in line with its new record; return whether it runs.

        Raises:
            PylxcError: something cannot be had; all is as it was.
        """
        running = self._runtime.get(after.key)
        if running is None:
            return False
        with Reverter() as revert:
            changed = changed_keys(before.expanded_config, after.expanded_config)
            for key, why in limits.refused(after.expanded_config).items():
                if key in changed:
                    raise BadRequest(f"{key} cannot be applied: {why}")
            if "limits.cpu" in changed:
                self._allotments.cpus.check(after.expanded_config.get("limits.cpu", ""))
            if "linux.kernel_modules" in changed:
                load_modules(after)
            if "raw.apparmor" in changed:
                revert.add(self._apparmor.load, before)
                self._apparmor.load(after)
            disks = disk_limits.are_changed(before.expanded_devices, after.expanded_devices)
            if disks or any(key.startswith("limits.") for key in changed):
                revert.add(self._allotments.change, before)
                self._allotments.change(after)
            if before.expanded_devices != after.expanded_devices:
                self._hotplug.apply(after)
            revert.success()
        self._guests.changed(before, after, running.idmap)
        return True
