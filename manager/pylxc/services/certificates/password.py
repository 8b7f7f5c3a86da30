"""The trust password: kept as salt and scrypt, in the form that LXD has."""

from __future__ import annotations

import hashlib
import hmac
import os
import threading

_SALT_BYTES = 32
_KEY_BYTES = 64
_one_at_a_time = threading.Lock()
"""Each takes 16 MiB and a tenth of a second, and strangers ask for them."""


def hashed(password: str) -> str:
    """Return what is stored of a password."""
    salt = os.urandom(_SALT_BYTES)
    return (salt + _derive(password, salt)).hex()


def matches(stored: str, password: str) -> bool:
    """Tell whether `stored` was made of `password`; takes as long for a wrong one, and for an empty `stored`."""
    data = bytes.fromhex(stored)
    salt, key = data[:_SALT_BYTES], data[_SALT_BYTES:]
    return hmac.compare_digest(_derive(password, salt), key)


def _derive(password: str, salt: bytes) -> bytes:
    with _one_at_a_time:
        return hashlib.scrypt(password.encode(), salt=salt, n=1 << 14, r=8, p=1, dklen=_KEY_BYTES)
