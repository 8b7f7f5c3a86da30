"""A certificate authority of the tests' own."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LIFETIME = dt.timedelta(days=2)
HOSTS = ("localhost", "127.0.0.1", "::1", "198.51.100.1", "198.51.100.7")
"""Names and addresses that servers of tests are called by."""


class Authority:
    """A CA, and one server's key pair that it has signed, in `directory`.

    Attributes:
        file: the CA's certificate in PEM: what SSL_CERT_FILE names for who is to trust it.
        pem: the server's certificate in PEM: what a source's `certificate` pins.
    """

    def __init__(self, directory: Path) -> None:
        self.file = str(directory / "ca.pem")
        self._server = directory / "server.pem"
        key, name = ec.generate_private_key(ec.SECP256R1()), _name("tests")
        authority = _builder(name, name, key, ca=True).sign(key, hashes.SHA256())
        Path(self.file).write_bytes(authority.public_bytes(serialization.Encoding.PEM))
        server_key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_general_name(host) for host in HOSTS])
        builder = _builder(_name("server"), name, server_key, ca=False).add_extension(names, critical=False)
        certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        self.pem = certificate.decode()
        self._server.write_bytes(
            certificate
            + server_key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def context(self) -> ssl.SSLContext:
        """Return what a server wraps its connections by."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._server)
        return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool
) -> x509.CertificateBuilder:
    start = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
