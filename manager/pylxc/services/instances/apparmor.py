"""The AppArmor profile of each running instance, on hosts that have AppArmor."""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress

from pylxc.errors import BadRequest, PylxcError, Unavailable
from pylxc.kernel import apparmor
from pylxc.paths import Paths
from pylxc.runtime.container import cgroup_name
from pylxc.services.instances import apparmor_profile, raw_lxc
from pylxc.services.instances.expand import Record

log = logging.getLogger(__name__)

_CLASSES = {"userns": "namespaces/userns_create", "mqueue": "ipc/posix_mqueue", "io_uring": "io_uring"}
"""Rules that AppArmor 4 has, and must have where the kernel asks for them."""


class AppArmor:
    """Loads and unloads profiles; thread-safe as long as callers hold the instance's lock."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._dir = f"{paths.root}/security/apparmor"

    def load(self, found: Record) -> str:
        """Load the profile of an instance's configuration and return its name.

        Returns:
            "" where the host has no AppArmor, or `raw.lxc` wants no profile.

        Raises:
            Unavailable: AppArmor's parser or its file system is missing.
            BadRequest: `raw.apparmor` is malformed.
        """
        if raw_lxc.of(found.expanded_config).unconfined or not apparmor.is_enabled():
            return ""
        name = self._name(found.key)
        known = frozenset(word for word, feature in _CLASSES.items() if apparmor.mediates(feature))
        text = apparmor_profile.text(name, found.expanded_config, known)
        self._write(name, text)
        try:
            apparmor.load(f"{self._dir}/profiles/{name}", f"{self._dir}/cache")
        except BadRequest as error:
            error.message = _by_line_of_raw(error.message, text)
            raise
        return name

    def unload(self, key: str) -> None:
        """Unload the profile of an instance that has ended; nothing happens when there is none."""
        try:
            if apparmor.is_enabled():
                apparmor.unload(self._name(key))
        except (OSError, Unavailable) as error:
            log.warning("Failed unloading the AppArmor profile of instance %s: %s", key, error)

    def remove(self, key: str) -> None:
        """Remove what is kept of the profile of an instance that is deleted or renamed."""
        name = self._name(key)
        with suppress(FileNotFoundError):
            os.unlink(f"{self._dir}/profiles/{name}")
        with suppress(FileNotFoundError):
            for version in os.listdir(f"{self._dir}/cache"):
                with suppress(FileNotFoundError, NotADirectoryError):
                    os.unlink(f"{self._dir}/cache/{version}/{name}")

    def _name(self, key: str) -> str:
        # Like its control group: two daemons on one host may each have an instance c1.
        return f"pylxc-{cgroup_name(key, self._paths.instance_run(key))}"

    def _write(self, name: str, text: str) -> None:
        for directory in ("profiles", "cache"):
            os.makedirs(f"{self._dir}/{directory}", mode=0o700, exist_ok=True)
        path = f"{self._dir}/profiles/{name}"
        with suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            if file.read() == text:  # as old as what is compiled of it
                return
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def _by_line_of_raw(message: str, text: str) -> str:
    """Return what the parser says of a profile's text by the line of `raw.apparmor` that is at fault, if one is."""
    said = re.search(r"at line (\d+): (.*)", message)
    before, _, raw = text.partition(apparmor_profile.RAW)
    number = int(said[1]) - before.count("\n") - 1 if said else 0
    if said is None or number < 1:
        return message
    # What is not complete is found to be so at the brace that follows.
    return f"raw.apparmor line {min(number, raw.count(chr(10)) - 2)}: AppArmor's parser says: {said[2]}"


def lacking(raw: str) -> str:
    """Return why `raw.apparmor` has no effect on this host, "" when it has, or is not set."""
    with suppress(PylxcError):
        if raw and not apparmor.is_enabled():
            return "this host has no AppArmor"
    return ""
