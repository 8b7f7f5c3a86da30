"""Signed documents: checked by gpgv against a key ring of the administrator's."""

from __future__ import annotations

import os

from pylxc.errors import BadRequest, Internal
from pylxc.kernel import command

_ARMOUR = b"-----BEGIN PGP"


def verified(document: bytes, keyring: str, url: str) -> bytes:
    """Return what is signed in a clear-signed document.

    Args:
        document: text between PGP's lines.
        keyring: path of the key ring, in binary form.
        url: where the document came from, for errors.

    Raises:
        BadRequest: the key ring cannot be used.
        Internal: the signature is missing, bad, expired, or of a key that is not in the key ring.
    """
    try:
        with open(keyring, "rb") as file:
            armoured = file.read(len(_ARMOUR)) == _ARMOUR
    except OSError as error:
        raise BadRequest(f"Failed reading the key ring {keyring!r}: {os.strerror(error.errno or 0)}") from error
    if armoured:
        raise BadRequest(f"The key ring {keyring!r} is armored", hint="gpg --dearmor makes the binary form of it")
    argv = ["gpgv", "--status-fd", "2", "--keyring", os.path.abspath(keyring), "--output", "-", "-"]
    done = command.run(argv, input=document, env={"HOME": "/nonexistent"}, check=False)
    states = {
        words[1]: words[2:]
        for line in done.stderr.decode(errors="replace").splitlines()
        if len(words := line.split()) > 1 and words[0] == "[GNUPG:]"
    }
    if done.returncode or "VALIDSIG" not in states or "GOODSIG" not in states:
        raise Internal(f"{url} is not to be trusted: {_reason(states)}")
    return done.stdout


def _reason(states: dict[str, list[str]]) -> str:
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
