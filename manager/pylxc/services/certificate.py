"""The server's own certificate: self-signed, made when it is first needed."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import ipaddress
import os
import socket
import threading
from dataclasses import dataclass

from pylxc.paths import Paths

LIFETIME = dt.timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate in PEM, and the hex SHA-256 of its DER form."""

    pem: str
    fingerprint: str


class ServerCertificate:
    """server.crt and server.key in the state directory; the key is root's alone. Thread-safe."""

    def __init__(self, paths: Paths) -> None:
        self.certificate_file = f"{paths.root}/server.crt"
        self.key_file = f"{paths.root}/server.key"
        self._lock = threading.Lock()
        self._certificate: Certificate | None = None

    def get(self) -> Certificate:
        """Return the certificate; make it and its key when there is none."""
        with self._lock:
            if self._certificate is None:
                if not (os.path.exists(self.certificate_file) and os.path.exists(self.key_file)):
                    self._make()
                with open(self.certificate_file, encoding="ascii") as file:
                    pem = file.read()
                self._certificate = Certificate(pem, fingerprint(pem))
            return self._certificate

    def _make(self) -> None:
        # cryptography takes long to import and is needed once in a server's life
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        host = socket.gethostname()
        key = ec.generate_private_key(ec.SECP384R1())
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "pylxc"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"root@{host}"[:64]),
            ]
        )
        loopback = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
        start = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + LIFETIME)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host), *loopback]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(key, hashes.SHA384())
        )
        encoding = serialization.Encoding.PEM
        key_pem = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        # the key first: a certificate without its key would be taken for a whole pair after a crash
        _write(self.key_file, key_pem, 0o600)
        _write(self.certificate_file, certificate.public_bytes(encoding), 0o644)


def fingerprint(pem: str) -> str:
    """Return the hex SHA-256 of the DER form of the first certificate in `pem`."""
    body = pem.partition("-----BEGIN CERTIFICATE-----")[2].partition("-----END CERTIFICATE-----")[0]
    return hashlib.sha256(base64.b64decode(body)).hexdigest()


def _write(path: str, data: bytes, mode: int) -> None:
    """Write a file whole or not at all."""
    draft = f"{path}.new"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(fd, "wb") as file:
        os.fchmod(fd, mode)
        file.write(data)
        file.flush()
        os.fsync(fd)
    os.rename(draft, path)
