"""/1.0/certificates: the clients that are trusted."""

from __future__ import annotations

from pylxc.api.call import Call, Endpoint
from pylxc.api.responses import Answer, Async, Created, Sync
from pylxc.api.tls_gate import TlsProtocol
from pylxc.wire.certificates import CertificatePut, CertificatesPost


async def list_certificates(call: Call) -> Answer:
    """Answer the certificates: URLs, or objects with recursion."""
    found = await call.run(call.services.certificates.list, call.caller)
    return Sync(found if call.recursion else [_url(each["fingerprint"]) for each in found])


async def create(call: Call) -> Answer:
    """Trust a certificate, or issue a token to one that will be."""
    body = await call.body(CertificatesPost)
    connection, shown = call.request.protocol, None
    if isinstance(connection, TlsProtocol):
        shown = connection.certificate
        if not call.caller.trusted:
            await connection.try_secret()
    if body.get("token"):
        return Async(await call.run(call.services.certificates.token, body, call.caller))
    return Created(_url(await call.run(call.services.certificates.add, body, call.caller, shown)))


async def get(call: Call) -> Answer:
    """Answer one certificate."""
    return Sync(*await call.run(call.services.certificates.get, call.params["fingerprint"], call.caller))


async def put(call: Call) -> Answer:
    """Replace what is known of a certificate, or the certificate."""
    body = await call.body(CertificatePut)
    fingerprint = call.params["fingerprint"]
    await call.run(call.services.certificates.replace, fingerprint, body, call.caller, call.if_match)
    return Sync()


async def patch(call: Call) -> Answer:
    """Change something of it."""
    body = await call.body(CertificatePut)
    fingerprint = call.params["fingerprint"]
    await call.run(call.services.certificates.merge, fingerprint, body, call.caller, call.if_match)
    return Sync()


async def delete(call: Call) -> Answer:
    """Trust a certificate no more."""
    await call.run(call.services.certificates.delete, call.params["fingerprint"], call.caller)
    return Sync()


def _url(fingerprint: str) -> str:
    return f"/1.0/certificates/{fingerprint}"


ENDPOINTS = (
    Endpoint(path="/1.0/certificates", get=list_certificates, post=create, untrusted=frozenset({"POST"})),
    Endpoint(path="/1.0/certificates/{fingerprint}", get=get, put=put, patch=patch, delete=delete),
)
