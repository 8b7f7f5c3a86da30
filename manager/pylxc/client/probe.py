"""Asks a server of LXD's protocol for its certificate, before anything of it is trusted."""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl

from pylxc.client.tls import https_connection
from pylxc.errors import Unavailable

_ANSWER_BYTES = 1 << 20


class Probe:
    """What a server shows of itself.

    Attributes:
        certificate: its certificate, as PEM.
        fingerprint: SHA-256 of that, in hexadecimal digits.
        trusted: the host trusts it already, by one of its certificate authorities.
    """

    def __init__(self, certificate: bytes, *, trusted: bool) -> None:
        self.certificate = ssl.DER_cert_to_PEM_cert(certificate)
        self.fingerprint = hashlib.sha256(certificate).hexdigest()
        self.trusted = trusted


def probe(url: str) -> Probe:
    """Connect to `https://HOST:PORT` and make sure that a server of LXD's protocol answers there.

    The host's certificate authorities ($SSL_CERT_FILE) are tried first. $https_proxy and $no_proxy are obeyed.

    Raises:
        Unavailable: nothing answers there, or nothing that speaks the protocol.
        BadRequest: the URL is malformed.
    """
    try:
        return _ask(url, ssl.create_default_context(), trusted=True)
    except ssl.SSLCertVerificationError:
        # The certificate is shown to the user, who says whether it is the right one.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return _ask(url, context, trusted=False)


def _ask(url: str, context: ssl.SSLContext, *, trusted: bool) -> Probe:
    connection = https_connection(url, context)
    certificate = None
    try:
        connection.request("GET", "/1.0")
        assert isinstance(connection.sock, ssl.SSLSocket)
        certificate = connection.sock.getpeercert(binary_form=True)
        answer = json.loads(connection.getresponse().read(_ANSWER_BYTES))
        speaks = isinstance(answer, dict) and "api_version" in (answer.get("metadata") or {})
    except ssl.SSLCertVerificationError:
        raise
    except (OSError, http.client.HTTPException) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        raise Unavailable(f"{url} does not answer: {reason}") from error
    except (ValueError, TypeError):
        speaks = False
    finally:
        connection.close()
    if not speaks or not certificate:
        raise Unavailable(f"{url} is no server of LXD's protocol", hint="is it --protocol=simplestreams?")
    return Probe(certificate, trusted=trusted)
