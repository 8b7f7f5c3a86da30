"""Instances, their state, exec and console. See: LXD doc rest-api, instances."""

from __future__ import annotations

from typing import TypedDict

from pylxc.wire.backups import InstanceBackup

Devices = dict[str, dict[str, str]]

InstanceSource = TypedDict(
    "InstanceSource",
    {
        "type": str,
        "certificate": str,
        "alias": str,
        "fingerprint": str,
        "properties": dict[str, str],
        "server": str,
        "secret": str,
        "protocol": str,
        "base-image": str,
        "mode": str,
        "operation": str,
        "secrets": dict[str, str],
        "source": str,
        "live": bool,
        "instance_only": bool,
        "container_only": bool,
        "refresh": bool,
        "project": str,
        "allow_inconsistent": bool,
        "image_type": str,
    },
    total=False,
)
"""Where a new instance comes from; `type` is image, copy, migration or none."""


class InstancePut(TypedDict, total=False):
    """Body of PUT and PATCH /1.0/instances/NAME; `restore` names a snapshot to go back to."""

    architecture: str
    config: dict[str, str]
    devices: Devices
    ephemeral: bool
    profiles: list[str] | None
    restore: str
    stateful: bool
    description: str


class InstancesPost(TypedDict, total=False):
    """Body of POST /1.0/instances. `profiles` null is ["default"], [] is none. `start` starts it at once."""

    name: str
    architecture: str
    config: dict[str, str]
    devices: Devices
    ephemeral: bool
    profiles: list[str] | None
    restore: str
    stateful: bool
    description: str
    source: InstanceSource
    instance_type: str
    type: str
    start: bool


class InstanceMove(TypedDict, total=False):
    """`target` of a rename or move: the other server in push mode."""

    certificate: str
    operation: str
    secrets: dict[str, str]


class InstancePost(TypedDict, total=False):
    """Body of POST /1.0/instances/NAME: rename, or move to another pool, project or server."""

    name: str
    migration: bool
    live: bool
    instance_only: bool
    container_only: bool
    target: InstanceMove | None
    pool: str
    project: str
    allow_inconsistent: bool


class InstanceStatePut(TypedDict, total=False):
    """Body of PUT /1.0/instances/NAME/state. `timeout` in seconds, -1 waits for ever."""

    action: str
    timeout: int
    force: bool
    stateful: bool


class InstanceWaitPost(TypedDict, total=False):
    """Body of POST /1.0/instances/NAME/wait (pylxc_wait). `timeout` in seconds, -1 waits for ever."""

    condition: str
    timeout: int


class InstancesPut(TypedDict, total=False):
    """Body of PUT /1.0/instances: a state change of all of them."""

    state: InstanceStatePut


InstanceExecPost = TypedDict(
    "InstanceExecPost",
    {
        "command": list[str],
        "wait-for-websocket": bool,
        "interactive": bool,
        "environment": dict[str, str],
        "width": int,
        "height": int,
        "record-output": bool,
        "user": int,
        "group": int,
        "cwd": str,
    },
    total=False,
)
"""Body of POST /1.0/instances/NAME/exec."""


class InstanceConsolePost(TypedDict, total=False):
    """Body of POST /1.0/instances/NAME/console."""

    width: int
    height: int
    type: str


class InstanceStateCPU(TypedDict):
    """CPU time in nanoseconds."""

    usage: int


class InstanceStateMemory(TypedDict):
    """Memory in bytes; `total` is what the instance may have."""

    usage: int
    usage_peak: int
    swap_usage: int
    swap_usage_peak: int
    total: int


class InstanceStateDisk(TypedDict):
    """Bytes that a disk device takes, and that it may take, 0 for any number."""

    usage: int
    total: int


class InstanceStateAddress(TypedDict):
    """An address; `netmask` is the prefix length as text; `scope` is global, link or local."""

    family: str
    address: str
    netmask: str
    scope: str


class InstanceStateCounters(TypedDict):
    """Traffic of an interface, seen from inside."""

    bytes_received: int
    bytes_sent: int
    packets_received: int
    packets_sent: int
    errors_received: int
    errors_sent: int
    packets_dropped_outbound: int
    packets_dropped_inbound: int


class InstanceStateNetwork(TypedDict):
    """An interface in the container."""

    addresses: list[InstanceStateAddress]
    counters: InstanceStateCounters
    hwaddr: str
    host_name: str
    mtu: int
    state: str
    type: str


class InstanceState(TypedDict):
    """What runs: `pid` is -1 or 0 and `network` null when stopped."""

    status: str
    status_code: int
    disk: dict[str, InstanceStateDisk]
    memory: InstanceStateMemory
    network: dict[str, InstanceStateNetwork] | None
    pid: int
    processes: int
    cpu: InstanceStateCPU


class Instance(TypedDict):
    """An instance as GET answers it."""

    name: str
    description: str
    status: str
    status_code: int
    architecture: str
    config: dict[str, str]
    devices: Devices
    ephemeral: bool
    profiles: list[str]
    stateful: bool
    created_at: str
    last_used_at: str
    expanded_config: dict[str, str]
    expanded_devices: Devices
    location: str
    type: str
    project: str


class InstanceSnapshot(TypedDict):
    """A snapshot; `name` without its instance's; `size` is -1 when not known."""

    name: str
    architecture: str
    config: dict[str, str]
    devices: Devices
    ephemeral: bool
    profiles: list[str]
    stateful: bool
    created_at: str
    expires_at: str
    last_used_at: str
    expanded_config: dict[str, str]
    expanded_devices: Devices
    size: int


class InstanceSnapshotsPost(TypedDict, total=False):
    """Body of POST /1.0/instances/NAME/snapshots. `expires_at` null takes snapshots.expiry, "never" is no expiry."""

    name: str
    stateful: bool
    expires_at: str | None


class InstanceSnapshotPost(TypedDict, total=False):
    """Body of POST /1.0/instances/NAME/snapshots/SNAPSHOT: rename."""

    name: str
    migration: bool
    live: bool


class InstanceSnapshotPut(TypedDict, total=False):
    """Body of PUT and PATCH /1.0/instances/NAME/snapshots/SNAPSHOT."""

    expires_at: str


class InstanceFull(Instance):
    """What recursion=2 adds; `snapshots` and `backups` are null when there are none."""

    state: InstanceState | None
    snapshots: list[InstanceSnapshot] | None
    backups: list[InstanceBackup] | None


class InstanceTemplate(TypedDict, total=False):
    """A file that a template makes; `when` holds create, copy, rename and start, `template` is a name in templates/."""

    when: list[str]
    create_only: bool
    template: str
    properties: dict[str, str]


class InstanceMetadata(TypedDict, total=False):
    """An instance's metadata.yaml; dates are Unix times, `templates` are by the path that each makes."""

    architecture: str
    creation_date: int
    expiry_date: int
    properties: dict[str, str]
    templates: dict[str, InstanceTemplate]
