"""Whether the host still reaches its network over a bridge: those who answered before have to answer again."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from pylxc.drivers.network.lan_state import State
from pylxc.errors import Unavailable
from pylxc.kernel import neighbour

log = logging.getLogger(__name__)

_BEFORE_SECONDS = 3.0
_TURN_SECONDS = 0.5
_NEIGHBOURS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """Who is asked.

    Attributes:
        addresses: they answered on the interface before it went into the bridge.
        all_of_them: whether every one has to answer (gateways), or one is enough (others on the link).
        what: for a person.
    """

    addresses: frozenset[str]
    all_of_them: bool
    what: str


class Trial:
    """A bridge on trial, from the moment when this is made.

    Attributes:
        bridge: its name.
        parent: the interface below.
        seconds: how long it lasts.
        deadline: its end, by the monotonic clock.
        confirmed: set by the user who says that all is well.
    """

    def __init__(self, bridge: str, parent: str, seconds: float) -> None:
        self.bridge = bridge
        self.parent = parent
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self.confirmed = threading.Event()


def before(state: State) -> Peers:
    """Find out who answers now: the gateways, and where none does the neighbours that have answered some time ago."""
    for default in (True, False):
        gateways = _answering(state.index, state.gateways(default=default))
        if gateways:
            what = f"Gateway {', '.join(sorted(gateways))}"
            return Peers(addresses=gateways, all_of_them=True, what=what)
    others = _answering(state.index, neighbour.known(state.index)[:_NEIGHBOURS])
    return Peers(addresses=others, all_of_them=False, what=f"None of its neighbours {', '.join(sorted(others))}")


def wait(peers: Peers, index: int, trial: Trial) -> None:
    """Wait until the peers answer over the bridge, or the user says that all is well.

    Args:
        peers: from `before`.
        index: of the bridge.
        trial: how long, and who may end it.

    Raises:
        Unavailable: neither has happened in time.
        OSError: the bridge is gone.
    """
    if not peers.addresses:
        log.warning(
            "No gateway and no neighbour of %s answered before it went into %s: `pylxc network confirm %s` within %d s",
            trial.parent, trial.bridge, trial.bridge, trial.seconds,
        )  # fmt: skip
    while not trial.confirmed.is_set():
        left = trial.deadline - time.monotonic()
        if left <= 0:
            who = f"{peers.what} did not answer" if peers.all_of_them else f"{peers.what} answered"
            if not peers.addresses:
                who = f"No gateway and no neighbour of {trial.parent} could be asked"
            raise Unavailable(
                f"{who} over {trial.bridge}, and nobody confirmed it in {trial.seconds:g} s: "
                f"{trial.parent} is as it was before",
                hint=f"`pylxc network confirm {trial.bridge}` meanwhile keeps it; --yes asks nobody",
            )
        if not peers.addresses:
            trial.confirmed.wait(left)
            continue
        found = neighbour.answering(index, peers.addresses, min(_TURN_SECONDS, left))
        if found == peers.addresses or (found and not peers.all_of_them):
            return


def _answering(index: int, addresses: list[str]) -> frozenset[str]:
    try:
        return frozenset(neighbour.answering(index, addresses, _BEFORE_SECONDS))
    except OSError:  # it is down: nobody answers
        return frozenset()
