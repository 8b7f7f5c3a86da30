"""TLS that asks clients for a certificate and takes any: who it belongs to is for the API to say.

Python's `ssl` verifies a certificate against authorities whenever it asks for one, and ends the handshake of a client
that it does not know. Clients of this API have certificates that they signed themselves. pyOpenSSL verifies by a
callback; here it stands in for `ssl` under asyncio's own TLS transport, which needs no more than two classes' methods.
A client that shows a certificate has proved in the handshake that it has the key to it.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from OpenSSL import SSL, crypto

_BLOCK = 1 << 18
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2; those of 1.3 are all good."""


class TlsContext(ssl.SSLContext):
    """What asyncio is given as `ssl=` of a server.

    Args:
        certificate_file: the server's certificate, PEM.
        key_file: the key to it, PEM.
    """

    _openssl: SSL.Context

    def __new__(cls, certificate_file: str, key_file: str) -> TlsContext:
        """Return a context that has read the files.

        Raises:
            OSError: they cannot be read, or do not belong together.
        """
        self = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(_CIPHERS)
        # A resumed session shows no certificate; renegotiation is work that a client can ask for again and again.
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        with _translated():
            context.use_privatekey_file(key_file)
            context.use_certificate_chain_file(certificate_file)
            context.check_privatekey()
        self._openssl = context
        return self

    def __init__(self, *_: object) -> None:
        super().__init__()

    def wrap_bio(  # type: ignore[override]
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *_: object, **__: object
    ) -> TlsObject:
        """Return the TLS of one connection, whose bytes come and go through two buffers."""
        return TlsObject(SSL.Connection(self._openssl, None), incoming, outgoing)


class TlsObject:
    """As much of `ssl.SSLObject` as asyncio uses, and what it raises."""

    def __init__(self, connection: SSL.Connection, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self._connection = connection
        self._incoming = incoming
        self._outgoing = outgoing
        connection.set_accept_state()

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        with self._moving():
            self._connection.do_handshake()

    def read(self, size: int, buffer: memoryview | None = None) -> bytes | int:
        """Return up to `size` bytes, or their number when they are to go into `buffer`; nothing at the end."""
        try:
            with self._moving():
                if buffer is None:
                    return self._connection.recv(size)
                return self._connection.recv_into(buffer, size)
        except SSL.ZeroReturnError:
            return b"" if buffer is None else 0

    def write(self, data: bytes | memoryview) -> int:
        """Encrypt all of `data` and return its length."""
        # All, as asyncio copies what is left; and in pieces, as a buffer of OpenSSL's takes long to become large.
        view = memoryview(data)
        for start in range(0, len(view), _BLOCK):
            with self._moving():
                self._connection.sendall(view[start : start + _BLOCK])
        return len(view)

    def unwrap(self) -> None:
        """Say that nothing more will come."""
        with self._moving():
            self._connection.shutdown()

    def getpeercert(self, binary_form: bool = False) -> bytes | dict[str, object] | None:
        """Return the client's certificate as DER, None when it has shown none; `{}` in the form that nobody needs."""
        if not binary_form:
            return {}
        found = self._connection.get_peer_certificate()
        return None if found is None else crypto.dump_certificate(crypto.FILETYPE_ASN1, found)

    def cipher(self) -> tuple[str, str, int] | None:
        """Return name, protocol and key length of the cipher in use."""
        name, version = self._connection.get_cipher_name(), self._connection.get_cipher_version()
        return (name, version, self._connection.get_cipher_bits() or 0) if name and version else None

    def compression(self) -> None:
        """Return None: nothing is compressed."""

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """Take in what has come, do something, and put out what is to be sent, whether it went well or not."""
        if data := self._incoming.read():
            self._connection.bio_write(data)
        try:
            with _translated():
                yield
        finally:
            self._put_out()

    def _put_out(self) -> None:
        while True:
            try:
                self._outgoing.write(self._connection.bio_read(_BLOCK))
            except SSL.WantReadError:
                return


@contextmanager
def _translated() -> Iterator[None]:
    """Raise what `ssl` would; `ZeroReturnError`, the peer's regular end, stays what it is."""
    try:
        yield
    except SSL.WantReadError:
        raise ssl.SSLWantReadError from None
    except SSL.ZeroReturnError:
        raise
    except SSL.SysCallError as error:
        raise ssl.SSLError(str(error)) from error
    except SSL.Error as error:
        reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
        raise ssl.SSLError(reasons[0][2] if reasons else "TLS failed") from error
