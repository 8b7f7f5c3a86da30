"""Networks. See: LXD doc rest-api, networks."""

from __future__ import annotations

from typing import TypedDict

from pylxc.wire.instances import InstanceStateAddress


class NetworkPut(TypedDict, total=False):
    """Body of PUT and PATCH /1.0/networks/NAME."""

    config: dict[str, str]
    description: str


class NetworksPost(NetworkPut, total=False):
    """Body of POST /1.0/networks; `type` is bridge when absent."""

    name: str
    type: str


class NetworkPost(TypedDict, total=False):
    """Body of POST /1.0/networks/NAME: the new name."""

    name: str


class Network(TypedDict):
    """A network; unmanaged interfaces of the host are listed as well, `managed` false."""

    name: str
    description: str
    type: str
    managed: bool
    status: str
    config: dict[str, str]
    used_by: list[str]
    locations: list[str]


class NetworkLease(TypedDict):
    """An address in use; `type` is static, dynamic, gateway or uplink."""

    hostname: str
    hwaddr: str
    address: str
    type: str
    location: str


class NetworkStateCounters(TypedDict):
    """Traffic of an interface."""

    bytes_received: int
    bytes_sent: int
    packets_received: int
    packets_sent: int


class NetworkStateBridge(TypedDict):
    """A bridge's settings; `forward_delay` in hundredths of a second."""

    id: str
    stp: bool
    forward_delay: int
    vlan_default: int
    vlan_filtering: bool
    upper_devices: list[str]


class NetworkState(TypedDict):
    """An interface of the host as it is now."""

    addresses: list[InstanceStateAddress]
    counters: NetworkStateCounters
    hwaddr: str
    mtu: int
    state: str
    type: str
    bond: None
    bridge: NetworkStateBridge | None
    vlan: None
    ovn: None


class NetworkForwardPort(TypedDict, total=False):
    """Ports of a forward: `listen_port` and `target_port` are lists of ports and ranges, `protocol` is tcp or udp."""

    description: str
    protocol: str
    listen_port: str
    target_port: str
    target_address: str


class NetworkForwardPut(TypedDict, total=False):
    """Body of PUT and PATCH /1.0/networks/NAME/forwards/ADDRESS."""

    description: str
    config: dict[str, str]
    ports: list[NetworkForwardPort]


class NetworkForwardsPost(NetworkForwardPut, total=False):
    """Body of POST /1.0/networks/NAME/forwards."""

    listen_address: str


class NetworkForward(TypedDict):
    """An address of the host whose ports go to instances on a network."""

    description: str
    config: dict[str, str]
    ports: list[NetworkForwardPort]
    listen_address: str
    location: str
