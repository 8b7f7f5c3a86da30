"""What a network driver does: it makes the kernel and the helpers agree with a network's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """An interface of an instance that DHCP and DNS know by its MAC address.

    `name` is the host name without domain; `ipv4` and `ipv6` are addresses that it always gets, empty for any.
    """

    hwaddr: str
    name: str
    ipv4: str = ""
    ipv6: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """An address that DHCP gave out; `hwaddr` is empty for IPv6, whose clients are known by other means."""

    address: str
    hwaddr: str
    hostname: str


class NetworkDriver(Protocol):
    """A managed network. Errors are `PylxcError`s with one line that says what is missing or in the way."""

    def complete(self, config: Mapping[str, str], taken: list[str]) -> dict[str, str]:
        """Return the configuration of a new network with every `auto` chosen; `taken` are subnets of others.

        Raises:
            BadRequest: a value does not fit the others, or the host.
        """

    def start(self, config: Mapping[str, str]) -> None:
        """Bring the network up, or to a changed configuration; on error a network that was down is down again."""

    def stop(self) -> None:
        """Take down all that `start` made, also after a crash in the middle of it; files stay."""

    def delete(self) -> None:
        """Take the network down and remove its files."""

    def set_host(self, key: str, host: Host) -> None:
        """Make an instance's interface known; `key` names it, for `forget_host`."""

    def forget_host(self, key: str) -> None:
        """Undo `set_host`; a key that is not known is no error."""

    def hosts(self) -> dict[str, Host]:
        """Return the interfaces that are known, by key."""

    def leases(self) -> list[Lease]:
        """Return the addresses that DHCP gave out and that have not expired."""

    def release(self, hwaddr: str) -> None:
        """End the leases of a MAC address whose interface is gone for good."""

    def pidfd(self) -> int | None:
        """Return a new descriptor of the helper that must go on running, None when there is none."""
