"""Certificates of clients. See: LXD doc rest-api, certificates."""

from __future__ import annotations

from typing import TypedDict


class CertificatePut(TypedDict, total=False):
    """Body of PUT and PATCH /1.0/certificates/FINGERPRINT; `certificate` is PEM."""

    certificate: str
    name: str
    type: str
    restricted: bool
    projects: list[str] | None


class CertificatesPost(CertificatePut, total=False):
    """Body of POST /1.0/certificates.

    `certificate` is base64 of DER, empty for that of the connection; `password` is the trust password or a join token;
    `token` asks for one of these.
    """

    password: str
    token: bool


class Certificate(TypedDict):
    """A certificate that is trusted."""

    certificate: str
    fingerprint: str
    name: str
    projects: list[str]
    restricted: bool
    type: str


class JoinToken(TypedDict):
    """What a token is made of: base64 of this in JSON."""

    client_name: str
    fingerprint: str
    addresses: list[str]
    secret: str
    expires_at: str
