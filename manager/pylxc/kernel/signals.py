"""What a process does on signals, below glibc and Python."""

from __future__ import annotations

from pylxc.kernel.libc import syscall

# Numbers rather than `signal`, which is too large for what every monitor carries along. See: asm-generic/signal.h
_COUNT = 64
_PYTHON_IGNORES = (13, 25)  # SIGPIPE, SIGXFSZ
_FIXED = (9, 19)  # SIGKILL, SIGSTOP
_DEFAULT = bytes(32)
"""struct sigaction of the kernel: SIG_DFL, no flags, no restorer, an empty mask. See: asm-generic/signal.h."""


def stop_ignoring() -> None:
    """Set every signal to its default action, but those that the interpreter ignores for its own good.

    Whoever started us (a shell's `&`, nohup) may have had some ignored, and every exec hands that on. glibc's own, 32
    and 33, which it lets nobody set, are among them.

    Raises:
        OSError: see rt_sigaction(2).
    """
    for number in range(1, _COUNT + 1):
        if number not in (*_PYTHON_IGNORES, *_FIXED):
            syscall("rt_sigaction", number, _DEFAULT, None, 8)
