"""Queries on network forwards. Callers hold the transaction."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from pylxc.db.models import Network, NetworkForward
from pylxc.errors import NotFound


def everything(session: Session) -> list[NetworkForward]:
    """Return the forwards of all created networks, by address."""
    found = select(NetworkForward).join(NetworkForward.network).where(Network.state == "created")
    return list(session.scalars(found.order_by(NetworkForward.listen_address)))


def of_network(session: Session, network: Network) -> list[NetworkForward]:
    """Return the forwards of a network, by address."""
    found = select(NetworkForward).where(NetworkForward.network_id == network.id)
    return list(session.scalars(found.order_by(NetworkForward.listen_address)))


def find(session: Session, address: str) -> NetworkForward | None:
    """Return the forward that listens on `address`, of whatever network; None when there is none."""
    return session.scalar(select(NetworkForward).where(NetworkForward.listen_address == address))


def get(session: Session, network: Network, address: str) -> NetworkForward:
    """Return a network's forward.

    Raises:
        NotFound: there is none of that address.
    """
    forward = find(session, address)
    if forward is None or forward.network_id != network.id:
        raise NotFound("Network forward not found")
    return forward
