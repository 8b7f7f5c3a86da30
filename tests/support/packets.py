"""Traffic between network namespaces: who answers, and how many bytes get through in a second."""

from __future__ import annotations

import subprocess
import sys

_RECEIVER = """
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
sock.bind((sys.argv[1], 5001))
sock.settimeout(10)
print("ready", flush=True)
sock.recv(65536)
first = last = time.monotonic()
sock.settimeout(0.2)
count = 0
try:
    while True:
        count += len(sock.recv(65536)) + 42
        last = time.monotonic()
except TimeoutError:
    print(count * 8 / ((last - first) or 1) / 1e6)
"""
_SENDER = """
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end = time.monotonic() + 0.4
while time.monotonic() < end:
    try:
        sock.sendto(bytes(1400), (sys.argv[1], 5001))
    except OSError:
        time.sleep(0.001)
"""


def in_namespace(where: str, *command: str) -> list[str]:
    """Return a command line that runs a command in a network namespace: a file, or a process's number."""
    path = f"/proc/{where}/ns/net" if where.isdigit() else where
    return ["nsenter", f"--net={path}", "--", *command]


def run(where: str, *command: str, check: bool = True) -> str:
    """Run a command in a network namespace and return what it prints."""
    done = subprocess.run(in_namespace(where, *command), capture_output=True, text=True, check=False, timeout=60)
    if check and done.returncode:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def answers(where: str, address: str, source: str = "") -> bool:
    """Return whether an address answers to one of several pings, from an address of the namespace's own."""
    return any(_ping(where, address, source) for _ in range(5))


def is_silent(where: str, address: str, source: str = "") -> bool:
    """Return whether an address does not answer to a ping within a second."""
    return not _ping(where, address, source)


def _ping(where: str, address: str, source: str) -> bool:
    options = ["-I", source] if source else []
    command = ["busybox", "ping", "-c", "1", "-W", "1", *options, address]
    return not subprocess.run(in_namespace(where, *command), capture_output=True, check=False).returncode


def megabits(sender: str, receiver: str, address: str, *, at_least: float = 0) -> float:
    """Return how many million bits a second arrive of what is sent as fast as it goes.

    Args:
        sender: network namespace.
        receiver: network namespace.
        address: of the receiver.
        at_least: less is measured again, some times: others may have had the processor.
    """
    found = 0.0
    for _ in range(6):
        found = max(found, _megabits(sender, receiver, address))
        if found > at_least:
            break
    return found


def _megabits(sender: str, receiver: str, address: str) -> float:
    command = in_namespace(receiver, sys.executable, "-c", _RECEIVER, address)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        subprocess.run(in_namespace(sender, sys.executable, "-c", _SENDER, address), check=True)
        return float(process.stdout.readline())
