"""`pylxc config device`: the devices of an instance."""

from __future__ import annotations

from pylxc.cli.devices import Devices
from pylxc.cli.profile import INSTANCE

COMMANDS = (Devices(INSTANCE).group(override=True),)
