"""Files of a stopped container that image templates make, one process per start; see `runtime.files` for where it is.

It tells which of them are there, is told their texts, and writes them: each is seen as it was or as it shall be.
"""

from __future__ import annotations

import os
from typing import Any

from pylxc.kernel import caps
from pylxc.runtime import files
from pylxc.runtime.spool import Spool


def main(payload: dict[str, Any], fds: list[int]) -> None:
    """Serve one request; the spawner's child of kind "templates".

    Args:
        payload: where (see `cell.enter`), and `targets`, paths inside. `{"present": [bool, ...]}` is told of them and
            `{"texts": [text or null, ...]}` expected, with null for a file that is to stay as it is.
        fds: the result socket.

    Raises:
        PylxcError: told to the daemon by the spawner.
    """
    caps.set_name("pylxc-templates")
    files.serve({"op": "write", "path": "/", **payload}, fds, {"write": _write})


def _write(request: files.Request) -> dict[str, Any]:
    targets = [os.path.normpath("/" + path.lstrip("/")) for path in request.payload["targets"]]
    message, _ = request.ask({"present": [os.path.exists(path) for path in targets]})
    for path, text in zip(targets, message["texts"], strict=True):
        if text is not None:
            _put(request, path, text.encode(errors="surrogateescape"))
    return {"done": True}


def _put(request: files.Request, path: str, content: bytes) -> None:
    """Write a file, a link's target in its place; a new one is root's with mode 0644."""
    try:
        files.make_parents(os.fsencode(os.path.realpath(path)))
        with Spool(path, request.proc_fd) as spool:
            spool.write(memoryview(content))
            spool.commit((0, 0), 0o644)
    except OSError as error:
        raise files.translate(error, path) from None
