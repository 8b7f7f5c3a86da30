"""Queries on certificates. Callers hold the transaction."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from pylxc.db.models import Certificate
from pylxc.errors import BadRequest, NotFound


def everything(session: Session) -> list[Certificate]:
    """Return all certificates, by fingerprint."""
    return list(session.scalars(select(Certificate).order_by(Certificate.fingerprint)))


def find(session: Session, fingerprint: str) -> Certificate | None:
    """Return the certificate with this fingerprint, None when there is none."""
    return session.scalar(select(Certificate).where(Certificate.fingerprint == fingerprint))


def get(session: Session, prefix: str) -> Certificate:
    """Return the certificate whose fingerprint begins like this.

    Raises:
        NotFound: there is none.
        BadRequest: there are several.
    """
    found = list(
        session.scalars(select(Certificate).where(Certificate.fingerprint.startswith(prefix, autoescape=True)).limit(2))
    )
    if not found or not prefix:
        raise NotFound("Certificate not found")
    if len(found) > 1:
        raise BadRequest("More than one certificate matches")
    return found[0]
