"""The device rules of a cgroup v2 group: a BPF program that the kernel asks at every open and mknod of a device.

The program is a chain: for each rule compare kind, access and numbers, and allow on a match; else deny.
See: linux/bpf.h, struct bpf_cgroup_dev_ctx
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from pylxc.kernel.fds import close
from pylxc.kernel.libc import syscall

_PROG_LOAD = 5
_PROG_ATTACH = 8
_PROG_GET_FD_BY_ID = 13
_PROG_QUERY = 16
_PROG_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_FLAG_ALLOW_MULTI = 2
_FLAG_REPLACE = 4

_KINDS = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}

# Opcodes: load word from context, move, shift, and, jumps, exit.
_LDX_W = 0x61
_MOV_K = 0xB7
_MOV32_X = 0xBC
_AND32_K = 0x54
_RSH32_K = 0x74
_JNE_K = 0x55
_EXIT = 0x95


def _instruction(opcode: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", opcode, src << 4 | dst, offset, value)


def device_program(rules: Iterable[str]) -> bytes:
    """Return the program that allows `rules` ("c 1:3 rwm", `*` for any number) and denies all other devices."""
    # r1 context -> r2 kind, r3 access, r4 major, r5 minor.
    program = [
        _instruction(_LDX_W, 2, 1, 0),
        _instruction(_MOV32_X, 3, 2),
        _instruction(_AND32_K, 2, value=0xFFFF),
        _instruction(_RSH32_K, 3, value=16),
        _instruction(_LDX_W, 4, 1, 4),
        _instruction(_LDX_W, 5, 1, 8),
    ]
    allow = [_instruction(_MOV_K, 0, value=1), _instruction(_EXIT)]
    for rule in rules:
        kind, numbers, access = rule.split()
        major, minor = numbers.split(":")
        tests = [(2, _KINDS[kind])]
        denied = 7 & ~sum(_ACCESS[letter] for letter in access)
        tests += [(register, int(number)) for register, number in ((4, major), (5, minor)) if number != "*"]
        body = [(_JNE_K, register, value) for register, value in tests]
        mask = [_instruction(_MOV32_X, 0, 3), _instruction(_AND32_K, 0, value=denied)] if denied else []
        length = len(body) + len(mask) + (1 if denied else 0) + len(allow)
        block: list[bytes] = []
        for opcode, register, value in body:
            block.append(_instruction(opcode, register, 0, length - len(block) - 1, value))
        if denied:
            block += mask
            block.append(_instruction(_JNE_K, 0, 0, length - len(block) - 1, 0))
        program += block + allow
    program += [_instruction(_MOV_K, 0, value=0), _instruction(_EXIT)]
    return b"".join(program)


class _LoadAttr(ctypes.Structure):
    _fields_ = [
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
    ]


class _AttachAttr(ctypes.Structure):
    _fields_ = [
        ("target_fd", ctypes.c_uint32),
        ("attach_bpf_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
        ("replace_bpf_fd", ctypes.c_uint32),
    ]


class _QueryAttr(ctypes.Structure):
    _fields_ = [
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("query_flags", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
        ("prog_ids", ctypes.c_uint64),
        ("prog_cnt", ctypes.c_uint32),
    ]


class _IdAttr(ctypes.Structure):
    _fields_ = [("prog_id", ctypes.c_uint32), ("next_id", ctypes.c_uint32), ("open_flags", ctypes.c_uint32)]


def restrict_devices(cgroup_path: str, rules: Iterable[str]) -> None:
    """Attach the device program for `rules` to a cgroup v2 group, in place of the one that it has; it goes with it.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN of the host (a nested pylxc), see bpf(2).
    """
    program = ctypes.create_string_buffer(device_program(rules))
    count = (len(program) - 1) // 8
    text = ctypes.create_string_buffer(b"Apache-2.0")
    load = _LoadAttr(_PROG_TYPE_CGROUP_DEVICE, count, ctypes.addressof(program), ctypes.addressof(text))
    opened = [syscall("bpf", _PROG_LOAD, load, ctypes.sizeof(load))]
    try:
        opened.append(os.open(cgroup_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        program_fd, group_fd = opened
        attach = _AttachAttr(group_fd, program_fd, _ATTACH_CGROUP_DEVICE, _FLAG_ALLOW_MULTI)
        if (former := _attached(group_fd)) >= 0:
            opened.append(former)
            attach.attach_flags |= _FLAG_REPLACE
            attach.replace_bpf_fd = former
        syscall("bpf", _PROG_ATTACH, attach, ctypes.sizeof(attach), path=cgroup_path)
    finally:
        close(opened)


def _attached(group_fd: int) -> int:
    """Return a descriptor of the device program that a group has itself, -1 for none."""
    ids = (ctypes.c_uint32 * 1)()
    query = _QueryAttr(group_fd, _ATTACH_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), 1)
    syscall("bpf", _PROG_QUERY, query, ctypes.sizeof(query))
    if not query.prog_cnt:
        return -1
    by_id = _IdAttr(ids[0], 0, 0)
    return syscall("bpf", _PROG_GET_FD_BY_ID, by_id, ctypes.sizeof(by_id))
