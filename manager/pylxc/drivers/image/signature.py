"""Signed documents: checked by gpgv against a key ring of the administrator's."""

from __future__ import annotations

import hashlib
import os

from pylxc.errors import BadRequest, Internal
from pylxc.kernel import command


class KeyRing:
    """The keys that may sign.

    Args:
        path: of a key ring in binary form.

    Attributes:
        digest: changes with the keys in it.

    Raises:
        BadRequest: it cannot be used.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            raise BadRequest(f"Failed reading the key ring {path!r}: {error.strerror}") from error
        if content.startswith(b"-----BEGIN PGP"):
            raise BadRequest(f"The key ring {path!r} is armored", hint="gpg --dearmor makes the binary form of it")
        self.digest = hashlib.sha256(content).hexdigest()

    def verify(self, document: bytes, url: str) -> bytes:
        """Return what is signed in a clear-signed document, which came from `url`.

        Raises:
            Internal: the signature is missing, bad, expired, or of a key that is not in the key ring.
        """
        argv = ["gpgv", "--status-fd", "2", "--keyring", self._path, "--output", "-", "-"]
        done = command.run(argv, input=document, env={"HOME": "/nonexistent"}, check=False)
        lines = [line.split() for line in done.stderr.decode(errors="replace").splitlines()]
        states = {words[1] for words in lines if len(words) > 1 and words[0] == "[GNUPG:]"}
        if done.returncode or not {"GOODSIG", "VALIDSIG"} <= states:
            raise Internal(f"{url} is not to be trusted: {_reason(states)}")
        return done.stdout


def _reason(states: set[str]) -> str:
    for state, text in (
        ("BADSIG", "its signature does not fit"),
        ("EXPSIG", "its signature has expired"),
        ("EXPKEYSIG", "the key that signed it has expired"),
        ("REVKEYSIG", "the key that signed it was revoked"),
        ("NO_PUBKEY", "it is signed by a key that is not in the key ring"),
    ):
        if state in states:
            return text
    return "it is not signed"
