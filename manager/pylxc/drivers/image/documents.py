"""Documents of other places, kept on disk with what tells whether they are still the newest."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from pylxc.drivers.image.web import Web


@dataclass(frozen=True, slots=True)
class Kept:
    """A document as it was got. `identity` changes with its content."""

    content: bytes
    validators: dict[str, str]
    identity: str


class Documents:
    """The documents of one place, in a directory that is made when the first comes."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def get(self, web: Web, url: str, prepare: Callable[[bytes], bytes]) -> Kept:
        """Return the document at `url`, from the disk when it is still what the server has.

        Args:
            web: what to ask by.
            url: https.
            prepare: returns what is to be kept of a document that has come; what it raises, this raises.

        Raises:
            PylxcError: it cannot be had.
        """
        name = hashlib.sha256(url.encode()).hexdigest()[:32]
        old = self._read(name)
        answer = web.document(url, old.validators if old else None)
        if answer.content is None and old:
            return old
        content = prepare(answer.content or b"")
        new = Kept(content, answer.validators, hashlib.sha256(content).hexdigest())
        head = {"url": url, "validators": new.validators, "identity": new.identity}
        self.write(name, json.dumps(head).encode() + b"\n" + content)
        return new

    def read(self, name: str) -> bytes | None:
        """Return a file of the directory, None when it is not there."""
        try:
            with open(f"{self._directory}/{name}", "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the directory, whole or not at all."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        fd, draft = tempfile.mkstemp(dir=self._directory)
        try:
            with open(fd, "wb") as file:
                file.write(content)
            os.rename(draft, f"{self._directory}/{name}")
        except BaseException:
            os.unlink(draft)
            raise

    def age(self, name: str, now: float) -> float:
        """Return the seconds since a file was written or touched; infinite when it is not there or of the future."""
        try:
            seconds = now - os.stat(f"{self._directory}/{name}").st_mtime
        except FileNotFoundError:
            return float("inf")
        return seconds if seconds >= 0 else float("inf")

    def touch(self, name: str) -> None:
        """Make a file as new as if it was written now."""
        os.utime(f"{self._directory}/{name}")

    def _read(self, name: str) -> Kept | None:
        head, _, content = (self.read(name) or b"").partition(b"\n")
        try:
            known = json.loads(head)
            kept = Kept(content, known["validators"], known["identity"])
        except (ValueError, KeyError, TypeError):
            return None
        return kept if kept.identity == hashlib.sha256(content).hexdigest() else None  # cut by a crash of the host
