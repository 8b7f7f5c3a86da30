"""The server's own certificate: self-signed, made when it is first needed."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import threading
from dataclasses import dataclass

from pylxc import selfsigned
from pylxc.paths import Paths


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
                    host = socket.gethostname()
                    certificate, key = selfsigned.make(f"root@{host}", (host, "127.0.0.1", "::1"), server=True)
                    selfsigned.write_pair(self.certificate_file, certificate, self.key_file, key)
                with open(self.certificate_file, encoding="ascii") as file:
                    pem = file.read()
                self._certificate = Certificate(pem, fingerprint(pem))
            return self._certificate


def fingerprint(pem: str) -> str:
    """Return the hex SHA-256 of the DER form of the first certificate in `pem`."""
    body = pem.partition("-----BEGIN CERTIFICATE-----")[2].partition("-----END CERTIFICATE-----")[0]
    return hashlib.sha256(base64.b64decode(body)).hexdigest()
