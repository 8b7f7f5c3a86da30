"""Self-signed certificates, of the server and of the command, and the files they are kept in."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Sequence

LIFETIME = dt.timedelta(days=3650)


def make(name: str, hosts: Sequence[str] = (), *, server: bool) -> tuple[bytes, bytes]:
    """Return a new certificate and the key to it, as PEM.

    Args:
        name: of its subject; what is over 64 characters is cut off.
        hosts: host names and addresses that it is for.
        server: it is for a server; for a client otherwise.
    """
    # cryptography takes long to import and is needed once in a server's or a user's life
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def general(host: str) -> x509.GeneralName:
        try:
            return x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            return x509.DNSName(host)

    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "pylxc"),
            x509.NameAttribute(NameOID.COMMON_NAME, name[:64]),
        ]
    )
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
    start = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([general(host) for host in hosts]), critical=False)
    certificate = builder.sign(key, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)
    return certificate, key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_pair(certificate_file: str, certificate: bytes, key_file: str, key: bytes) -> None:
    """Keep a certificate and its key; the key is for its owner alone.

    The key is written first: a certificate without its key would be taken for a whole pair after a crash.
    """
    _write(key_file, key, 0o600)
    _write(certificate_file, certificate, 0o644)


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
