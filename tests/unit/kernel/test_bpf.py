"""The device program, run on a small machine of our own."""

from __future__ import annotations

import struct

import pytest

from pylxc.kernel.bpf import device_program

BLOCK, CHAR = 1, 2
MKNOD, READ, WRITE = 1, 2, 4


def run(program: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """Execute a program made of the few instructions that the generator uses; return r0."""
    registers = [0] * 11
    context = struct.pack("<III", access << 16 | kind, major, minor)
    position = 0
    while True:
        opcode, packed, offset, value = struct.unpack_from("<BBhi", program, position * 8)
        dst, src = packed & 15, packed >> 4
        position += 1
        match opcode:
            case 0x61:
                registers[dst] = struct.unpack_from("<I", context, offset)[0]
            case 0xB7:
                registers[dst] = value
            case 0xBC:
                registers[dst] = registers[src] & 0xFFFFFFFF
            case 0x54:
                registers[dst] &= value & 0xFFFFFFFF
            case 0x74:
                registers[dst] >>= value
            case 0x55:
                position += offset if registers[dst] != value else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"opcode {opcode:#x}")


RULES = ["c *:* m", "b *:* m", "c 1:3 rwm", "c 136:* rw", "b 8:1 r"]


@pytest.mark.parametrize(
    ("kind", "access", "major", "minor", "allowed"),
    [
        (CHAR, MKNOD, 99, 99, 1),
        (BLOCK, MKNOD, 99, 99, 1),
        (CHAR, READ, 99, 99, 0),
        (CHAR, READ | WRITE, 1, 3, 1),
        (CHAR, READ | WRITE | MKNOD, 1, 3, 1),
        (BLOCK, READ, 1, 3, 0),
        (CHAR, WRITE, 136, 7, 1),
        (CHAR, WRITE | MKNOD, 136, 7, 0),
        (BLOCK, READ, 8, 1, 1),
        (BLOCK, WRITE, 8, 1, 0),
        (BLOCK, READ, 8, 2, 0),
    ],
)
def test_rules(kind: int, access: int, major: int, minor: int, allowed: int) -> None:
    assert run(device_program(RULES), kind, access, major, minor) == allowed


def test_no_rule_denies_all() -> None:
    assert run(device_program([]), CHAR, READ, 1, 3) == 0
