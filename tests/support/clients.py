"""Clients of a daemon over TLS, with certificates of their own."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import http.client
import json
import secrets
import socket
import ssl
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.daemon import ApiError, Daemon

PORT = 8443
ADDRESS = f"127.0.0.1:{PORT}"


class Identity:
    """A self-signed certificate and its key, in files.

    Args:
        directory: where they are to be; must be there.
        name: of both files, and in the certificate.
        expired: it was valid yesterday.
        padding: bytes of its subject, to make it large.
    """

    def __init__(self, directory: Path, name: str, *, expired: bool = False, padding: int = 0) -> None:
        key = ec.generate_private_key(ec.SECP384R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        start = dt.datetime.now(dt.UTC) - dt.timedelta(days=3)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + dt.timedelta(days=2 if expired else 30))
        )
        if padding:
            oid = x509.ObjectIdentifier("1.3.6.1.4.1.55555.1")
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, b"\x04" * padding), critical=False)
        certificate = builder.sign(key, hashes.SHA384())
        self.name = name
        self.der = certificate.public_bytes(serialization.Encoding.DER)
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.fingerprint = hashlib.sha256(self.der).hexdigest()
        self.base64 = base64.b64encode(self.der).decode()
        self.certificate_file, self.key_file = f"{directory}/{name}.crt", f"{directory}/{name}.key"
        Path(self.certificate_file).write_text(self.pem)
        Path(self.key_file).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


def context(identity: Identity | None = None) -> ssl.SSLContext:
    """Return a client's side of TLS that trusts any server."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if identity is not None:
        made.load_cert_chain(identity.certificate_file, identity.key_file)
    return made


class TlsClient:
    """A client on the daemon's own network; a connection for each request.

    Args:
        daemon: the server.
        identity: what the client shows, None for nothing.
        port: where the server listens, on 127.0.0.1.
        source: the client's address; when empty one of its own, as few things may come from one at once.
    """

    def __init__(self, daemon: Daemon, identity: Identity | None = None, port: int = PORT, source: str = "") -> None:
        self._daemon = daemon
        self.source = source or ".".join(["127", *(str(secrets.randbelow(254) + 1) for _ in range(3))])
        self._context = context(identity)
        self._port = port

    def connect(self) -> ssl.SSLSocket:
        """Return a connection after its handshake."""
        plain = dial(self._daemon, "127.0.0.1", self._port, self.source)
        return self._context.wrap_socket(plain, server_hostname="127.0.0.1")

    def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send one request; return status and body."""
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=30)
        connection.sock = self.connect()
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request and return its metadata, of an operation the operation; raises ApiError."""
        return self._daemon.parse(self.send(method, path, body)[1])["metadata"]

    def run(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request, wait for its operation, and return that; raises ApiError when it fails."""
        operation = self.request(method, path, body)
        found = self.request("GET", f"/1.0/operations/{operation['id']}/wait?timeout=60")
        if found["status_code"] != 200:
            raise ApiError(found["status_code"], found["err"])
        return found

    def status(self, method: str, path: str, body: Any = None) -> int:
        """Send one request and return the status of its answer."""
        return self.send(method, path, body)[0]


def dial(daemon: Daemon, host: str = "127.0.0.1", port: int = PORT, source: str = "") -> socket.socket:
    """Return a TCP connection to something on the daemon's network, from the address `source`."""
    assert daemon.netns
    with daemon.netns.entered():
        return socket.create_connection((host, port), timeout=30, source_address=(source, 0) if source else None)


def trust(daemon: Daemon, identity: Identity, **more: Any) -> None:
    """Have a daemon trust a certificate."""
    body = {"type": "client", "name": identity.name, "certificate": identity.base64, **more}
    daemon.request("POST", "/1.0/certificates", body)
