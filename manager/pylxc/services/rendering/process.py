"""The renderer's process: loads Jinja2 once, gives everything up, then forks a child for each request.

A template is a program of whoever made the image. Its child can compute and answer on the socket that came with the
request, and nothing else: another user, empty namespaces, a system call filter without files, sockets or programs,
and bounds on time and memory. It ends with the request.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal

from pylxc.kernel import caps, mount, namespaces, seccomp
from pylxc.kernel import fds as descriptors
from pylxc.runtime import protocol
from pylxc.services.rendering import pongo
from pylxc.services.rendering.bounds import CPU_SECONDS, MEMORY, WALL_SECONDS

_NOBODY = 65534
_NAMESPACES = (
    namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWNET
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWCGROUP
)
_CALLS = """
    alarm brk clock_gettime clone close dup exit exit_group fcntl fork fstat ftruncate futex getpid getrandom
    getsockname getsockopt gettid lseek madvise memfd_create mmap mprotect mremap munmap newfstatat poll ppoll pread64
    prlimit64 read recvmsg restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_yield sendmsg setitimer
    setrlimit set_robust_list sigaltstack wait4 write
"""
_WARM = (
    '{% if config_get("a", "b")|default:"x" == "b" && !path %}{{- properties.a|upper }}{% endif %}',
    "{% for key, value in config %}{{ loop.index }}{% endfor %}{% set a = 1 %}{% ifequal a 1 %}{% endifequal %}",
    '{{ "2026-01-02T03:04:05Z"|date:"2006-01-02" }}',
    "{% if %}",
    "{{ nothing() }}",
)
"""Templates that make Jinja2 load all that it loads late: a child cannot load anything."""


def main(fd: int) -> None:
    """Serve the daemon on the socket `fd` until it closes it.

    A request is `{"templates": [{"source", "context"}, ...]}` with the socket for its answer: `{"texts": [...]}`, or
    `{"failed": N, "reason": text}` for the first that cannot be rendered.
    """
    caps.set_name("pylxc-renderer")
    environment = pongo.Environment()
    for source in _WARM:
        with contextlib.suppress(pongo.RenderError):
            pongo.render(environment, source, {"config": {"a": "b"}, "properties": {}, "path": ""})
    daemon = protocol.adopt(fd)
    room = _address_space() + MEMORY
    _confine(fd)
    gc.collect()
    gc.freeze()
    while (packet := protocol.receive_packet(daemon)) is not None:
        if os.fork() == 0:
            daemon.close()
            _answer(environment, room, *packet)
        descriptors.close(packet[1])


def _confine(fd: int) -> None:
    program = seccomp.compile_filter([(name, "allow", ()) for name in _CALLS.split()], "errno:1")
    descriptors.close_all_but([0, 1, 2, fd])
    namespaces.unshare(_NAMESPACES)
    mount.set_propagation("/", mount.MS_REC | mount.MS_PRIVATE)
    root = mount.new("tmpfs", (("size", "4k"), ("mode", "0555")), attributes=mount.ATTR_RDONLY)
    mount.attach_at(root, "/tmp")  # noqa: S108 - any directory will do: the mount namespace is this process's own
    os.fchdir(root)
    mount.pivot_root(".", ".")
    mount.unmount(".")
    os.close(root)
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 64)):
        resource.setrlimit(limit, (value, value))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a child ended
    caps.set_no_new_privileges()
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    caps.set_dumpable(False)
    seccomp.load(program)


def _answer(environment: pongo.Environment, room: int, data: bytes, fds: list[int]) -> None:
    """Answer one request within `room` bytes of address space, and end."""
    try:
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        signal.alarm(WALL_SECONDS)
        request, (answer_fd,) = protocol.read_packet(data, fds)
        protocol.tell(protocol.adopt(answer_fd), _render(environment, request))
    except BaseException as error:  # noqa: BLE001 (a forked child must never fall back into the loop)
        os.write(2, f"pylxc-renderer: {error!r}\n".encode())
    finally:
        os._exit(0)


def _render(environment: pongo.Environment, request: protocol.Message) -> protocol.Message:
    texts = []
    for number, template in enumerate(request["templates"]):
        try:
            texts.append(pongo.render(environment, template["source"], template["context"]))
        except pongo.RenderError as error:
            return {"failed": number, "reason": str(error)}
        except MemoryError:
            return {"failed": number, "reason": "it takes too much memory"}
    return {"texts": texts}


def _address_space() -> int:
    """Return the bytes of address space that this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
