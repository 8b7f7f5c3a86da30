"""Certificates of clients as they come: DER, base64 of that, or PEM."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from pylxc.errors import BadRequest

MAX_BYTES = 64 * 1024
_BEGIN = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate that could be parsed.

    Attributes:
        fingerprint: hex SHA-256 of its DER form.
        pem: the certificate.
        common_name: of its subject, "" for none.
        not_before: when it begins to be valid.
        not_after: when it ends to be.
    """

    fingerprint: str
    pem: str
    common_name: str
    not_before: dt.datetime
    not_after: dt.datetime

    def is_valid(self, at: dt.datetime) -> bool:
        """Tell whether it is valid at a time."""
        return self.not_before <= at <= self.not_after


def parse(der: bytes) -> ClientCertificate:
    """Read a certificate.

    Raises:
        BadRequest: it is none, or longer than `MAX_BYTES`.
    """
    if len(der) > MAX_BYTES:
        raise BadRequest(f"The certificate is longer than {MAX_BYTES} bytes")
    try:
        found = x509.load_der_x509_certificate(der)
        names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return ClientCertificate(
            fingerprint=hashlib.sha256(der).hexdigest(),
            pem=found.public_bytes(Encoding.PEM).decode(),
            common_name=str(names[0].value) if names else "",
            not_before=found.not_valid_before_utc,
            not_after=found.not_valid_after_utc,
        )
    except Exception as error:  # a malformed certificate raises whatever its parser meets
        raise BadRequest("Invalid certificate: it cannot be parsed") from error


def parse_text(text: str) -> ClientCertificate:
    """Read a certificate in base64 of DER, or in PEM; raises like `parse`."""
    body = text
    if _BEGIN in text:
        body = text.partition(_BEGIN)[2].partition("-----END")[0]
    try:
        der = base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest("Invalid certificate: base64 or PEM is needed") from error
    return parse(der)
