"""Certificates of clients: list, add, change, remove; and who a caller is by the one it shows."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pylxc import validate
from pylxc.db import certificates, projects
from pylxc.db.engine import Database
from pylxc.db.models import Certificate, Clock, Project
from pylxc.errors import BadRequest, Forbidden, NotSupported
from pylxc.services import etag
from pylxc.services.certificates import password
from pylxc.services.certificates.caller import STRANGER, Caller
from pylxc.services.certificates.tokens import JoinTokens, decode
from pylxc.services.events import EventBus
from pylxc.services.operations import Operation, Operations
from pylxc.services.server import Server
from pylxc.wire import certificates as wire

if TYPE_CHECKING:
    from pylxc.services.certificates.x509 import ClientCertificate

_TYPES = ("client", "metrics")
_NAME_LENGTH = 255


class Certificates:
    """The clients that this server trusts; thread-safe."""

    def __init__(self, db: Database, server: Server, operations: Operations, events: EventBus, clock: Clock) -> None:
        self._db = db
        self._server = server
        self._events = events
        self._clock = clock
        self._tokens = JoinTokens(operations, lambda: server.value("core.remote_token_expiry"), clock)

    def identify(self, der: bytes | None) -> Caller:
        """Return who has shown a certificate (None: has shown none) in a TLS handshake."""
        open_metrics = self._server.value("core.metrics_authentication") == "false"
        stranger = Caller(reads_metrics=True) if open_metrics else STRANGER
        shown = _parsed(der)
        if shown is None or not shown.is_valid(self._clock()):
            return stranger
        with self._db.reading() as session:
            row = certificates.find(session, shown.fingerprint)
            if row is None:
                return stranger
            if row.type == "metrics":
                return Caller(fingerprint=row.fingerprint, reads_metrics=True)
            confined = frozenset(project.name for project in row.projects) if row.restricted else None
        return Caller(trusted=True, fingerprint=shown.fingerprint, projects=confined, reads_metrics=open_metrics)

    def list(self, caller: Caller) -> list[wire.Certificate]:
        """Return the certificates by fingerprint; a restricted caller's own only."""
        with self._db.reading() as session:
            rows = [_render(row) for row in certificates.everything(session)]
        return [row for row in rows if not caller.restricted or row["fingerprint"] == caller.fingerprint]

    def get(self, prefix: str, caller: Caller) -> tuple[wire.Certificate, str]:
        """Return a certificate by the beginning of its fingerprint, and its entity tag; raises NotFound, Forbidden."""
        with self._db.reading() as session:
            row = _of(session, prefix, caller)
            return _render(row), etag.etag(*_tagged(row))

    def add(self, body: wire.CertificatesPost, caller: Caller, shown: bytes | None) -> str:
        """Trust a certificate and return its fingerprint.

        Args:
            body: what is asked for.
            caller: who asks.
            shown: the certificate of the caller's connection, as DER.

        Raises:
            BadRequest: a malformed certificate, one that is there, or the caller is trusted already.
            Forbidden: the caller is not trusted, and has neither token nor password.
            NotFound: there is no such project.
        """
        given = body.get("certificate", "")
        if caller.restricted:
            raise Forbidden("This certificate is restricted to its projects")
        if caller.trusted and not given and not body.get("password"):
            raise BadRequest("Client is already trusted")
        if caller.trusted:
            return self._trust(body, self._certificate(given, shown))
        secret = body.get("password", "")
        if not secret:
            raise Forbidden("not authorized")
        certificate = self._certificate(given, shown)
        with self._db.reading() as session:
            if certificates.find(session, certificate.fingerprint) is not None:
                raise BadRequest("Certificate already in trust store")
        if (token := decode(secret)) is not None:
            return self._trust(self._tokens.redeem(token), certificate)
        stored = str(self._server.config().get("core.trust_password", ""))
        if not password.matches(stored, secret) or not stored:
            raise Forbidden("not authorized")
        return self._trust(body, certificate)

    def token(self, body: wire.CertificatesPost, caller: Caller) -> Operation:
        """Issue a join token.

        Raises:
            Forbidden: the caller is not trusted, or restricted.
            BadRequest: a malformed request, or this server does not listen on the network.
            NotFound: there is no such project.
        """
        if not caller.trusted or caller.restricted:
            raise Forbidden("not authorized")
        request = _request(body)
        with self._db.reading() as session:
            _projects(session, request)
        addresses = self._server.addresses()
        if not addresses:
            raise BadRequest(
                "Can't issue token when server isn't listening on network",
                hint="pylxc config set core.https_address=:8443",
            )
        return self._tokens.issue(request, self._server.certificate.get().fingerprint, addresses)

    def replace(self, prefix: str, body: wire.CertificatePut, caller: Caller, if_match: str | None) -> None:
        """Make a certificate what a PUT says; a restricted caller may renew its own certificate, and nothing else.

        Raises:
            NotFound: there is none, or no such project.
            BadRequest: a malformed value.
            Forbidden: it is not the caller's to change.
            PreconditionFailed: `if_match` is of another state.
        """

        def full(row: Certificate) -> wire.CertificatesPost:
            return {
                "name": body.get("name") or row.name,
                "type": body.get("type") or row.type,
                "restricted": body.get("restricted", False),
                "projects": body.get("projects") or [],
            }

        self._change(prefix, body, caller, if_match, full)

    def merge(self, prefix: str, body: wire.CertificatePut, caller: Caller, if_match: str | None) -> None:
        """Change what a PATCH has; raises like `replace`."""

        def full(row: Certificate) -> wire.CertificatesPost:
            return {
                "name": body.get("name", row.name),
                "type": body.get("type", row.type),
                "restricted": body.get("restricted", row.restricted),
                "projects": body.get("projects", _names(row)),
            }

        self._change(prefix, body, caller, if_match, full)

    def delete(self, prefix: str, caller: Caller) -> None:
        """Trust a certificate no more; raises NotFound, and Forbidden for a restricted caller and another's."""
        with self._db.transaction() as session:
            row = _of(session, prefix, caller)
            fingerprint = row.fingerprint
            session.delete(row)
        self._tell("deleted", fingerprint)

    def _change(
        self,
        prefix: str,
        body: wire.CertificatePut,
        caller: Caller,
        if_match: str | None,
        full: Callable[[Certificate], wire.CertificatesPost],
    ) -> None:
        renewed = self._certificate(body.get("certificate", ""), None) if body.get("certificate") else None
        with _unique(), self._db.transaction() as session:
            row = _of(session, prefix, caller)
            etag.check(if_match, *_tagged(row))
            wanted = _request(full(row))
            if caller.restricted and wanted != _request(_render(row)):
                raise Forbidden("A restricted client may change its certificate only")
            row.name, row.type = wanted.get("name", ""), wanted.get("type", "")
            row.restricted, row.projects = wanted.get("restricted", False), _projects(session, wanted)
            if renewed is not None:
                row.fingerprint, row.certificate = renewed.fingerprint, renewed.pem
            fingerprint = row.fingerprint
        self._tell("updated", fingerprint)

    def _certificate(self, text: str, shown: bytes | None) -> ClientCertificate:
        """Return the certificate in a request, else that of the connection, if it is good now."""
        from pylxc.services.certificates.x509 import parse, parse_text

        if not text and not shown:
            raise BadRequest("No client certificate provided")
        found = parse_text(text) if text else parse(shown or b"")
        if not found.is_valid(self._clock()):
            raise BadRequest(
                "The certificate is not valid at this time", hint="compare the clocks of client and server"
            )
        return found

    def _trust(self, body: wire.CertificatesPost, certificate: ClientCertificate) -> str:
        request = _request(body)
        name = request.get("name") or certificate.common_name or certificate.fingerprint[:12]
        with _unique(), self._db.transaction() as session:
            session.add(
                Certificate(
                    fingerprint=certificate.fingerprint,
                    type=request.get("type", ""),
                    name=name,
                    certificate=certificate.pem,
                    restricted=request.get("restricted", False),
                    projects=_projects(session, request),
                )
            )
        self._tell("created", certificate.fingerprint)
        return certificate.fingerprint

    def _tell(self, verb: str, fingerprint: str) -> None:
        self._events.lifecycle(f"certificate-{verb}", f"/1.0/certificates/{fingerprint}", project="")


def _parsed(der: bytes | None) -> ClientCertificate | None:
    from pylxc.services.certificates.x509 import parse

    try:
        return parse(der) if der else None
    except BadRequest:
        return None


@contextmanager
def _unique() -> Iterator[None]:
    """Tell of a certificate that is there already, whoever has just added it."""
    try:
        yield
    except IntegrityError as error:
        raise BadRequest("Certificate already in trust store") from error


def _request(body: wire.CertificatePut | wire.Certificate) -> wire.CertificatesPost:
    """Return what a certificate is to be, checked."""
    name, kind = body.get("name", ""), body.get("type") or "client"
    if kind == "server":
        raise NotSupported("Certificates of type server are for clusters, which this server has none of")
    validate.known(kind, _TYPES, "certificate type")
    if not name.isprintable() or len(name) > _NAME_LENGTH:
        raise BadRequest(f"Invalid certificate name {name[:32]!r}")
    wanted = sorted(set(body.get("projects") or []))
    return {"name": name, "type": kind, "restricted": body.get("restricted", False), "projects": wanted}


def _projects(session: Session, request: wire.CertificatesPost) -> builtins.list[Project]:
    return [projects.get(session, name) for name in request.get("projects") or []]


def _of(session: Session, prefix: str, caller: Caller) -> Certificate:
    """Return a certificate that the caller may see; raises NotFound, BadRequest, Forbidden."""
    row = certificates.get(session, prefix.lower())
    if caller.restricted and row.fingerprint != caller.fingerprint:
        raise Forbidden("not authorized")
    return row


def _names(row: Certificate) -> builtins.list[str]:
    return [project.name for project in row.projects]


def _render(row: Certificate) -> wire.Certificate:
    return {
        "certificate": row.certificate,
        "fingerprint": row.fingerprint,
        "name": row.name,
        "projects": _names(row),
        "restricted": row.restricted,
        "type": row.type,
    }


def _tagged(row: Certificate) -> tuple[object, ...]:
    return (row.fingerprint, row.name, row.type, row.restricted, _names(row))
