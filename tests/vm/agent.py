"""Runs inside the virtual machine: takes commands as JSON lines on a serial line, answers with status and output.

Request {"argv": [...], "timeout": seconds}; answer {"rc": N, "out": text of stdout and stderr}. Standard library only.
"""

import json
import os
import subprocess
import sys
import tty


def main() -> None:
    """Serve for ever on the serial line that argv names."""
    # No controlling terminal: the kernel writes to that when a process has reached its disk quota.
    with open(sys.argv[1], "r+b", buffering=0, opener=lambda path, flags: os.open(path, flags | os.O_NOCTTY)) as line:
        tty.setraw(line.fileno())
        line.write(b'{"ready": true}\n')
        buffer = b""
        while True:
            buffer += line.read(65536) or b""
            while b"\n" in buffer:
                request, buffer = buffer.split(b"\n", 1)
                line.write(json.dumps(_answer(json.loads(request))).encode() + b"\n")


def _answer(request: dict) -> dict:  # type: ignore[type-arg]
    try:
        done = subprocess.run(
            request["argv"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=request["timeout"], check=False,
        )  # fmt: skip
        return {"rc": done.returncode, "out": done.stdout.decode(errors="replace")}
    except subprocess.TimeoutExpired as error:
        return {"rc": -1, "out": f"timed out: {(error.stdout or b'').decode(errors='replace')}"}
    except OSError as error:
        return {"rc": 127, "out": str(error)}


main()
