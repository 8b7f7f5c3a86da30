"""What clients hear from a daemon that cannot start: the reason, instead of a connection that ends."""

from __future__ import annotations

import contextlib
import json
import socket

_SECONDS = 1.0
_MOST = 65536


def answer(listener: socket.socket, reason: str) -> None:
    """Answer everybody who waits at a listening socket with 503 and `reason`; waits for nobody else."""
    body = json.dumps({"type": "error", "error": reason, "error_code": 503, "metadata": None}).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    listener.setblocking(False)
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client, contextlib.suppress(OSError):
            client.settimeout(_SECONDS)
            client.recv(_MOST)
            client.sendall(head.encode() + body)
