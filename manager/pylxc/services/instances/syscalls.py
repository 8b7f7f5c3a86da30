"""Which system calls an instance may make: `security.syscalls.*`, and `raw.seccomp` in liblxc's format.

See: lxc.container.conf(5), section SECCOMP
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from pylxc.config.instance import INSTANCE
from pylxc.errors import BadRequest, NotSupported
from pylxc.runtime.spec import Comparison, SyscallRule

Policy = tuple[str, tuple[SyscallRule, ...]]
"""The action of what no rule names, and the rules."""

_ENOSYS = "errno:38"
_EACCES = "errno:13"
_DEFAULT_DENIED = ("kexec_load", "open_by_handle_at", "init_module", "finit_module", "delete_module")

_KINDS = {"allowlist": "allow", "whitelist": "allow", "denylist": "deny", "blacklist": "deny"}
_FORCED_UMOUNT = SyscallRule("umount2", _EACCES, (Comparison(1, "&=", 1, 1),))
"""What `reject_force_umount` denies: umount2 with MNT_FORCE."""

_OPERATORS = {
    "SCMP_CMP_NE": "!=", "SCMP_CMP_LT": "<", "SCMP_CMP_LE": "<=", "SCMP_CMP_EQ": "==", "SCMP_CMP_GE": ">=",
    "SCMP_CMP_GT": ">", "SCMP_CMP_MASKED_EQ": "&=",
}  # fmt: skip
_ARGUMENT = re.compile(r"\[\s*([0-5])\s*,\s*(\w+)\s*,\s*([\w!<=>&]+)\s*(?:,\s*(\w+)\s*)?\]")
_RULE = re.compile(r"(\w+)\s*([a-z]*(?:\s+[0-9]+)?)\s*((?:\[[^\]]*\][\s,]*)*)")


def policy(config: Mapping[str, str]) -> Policy:
    """Return what an instance of this expanded configuration may call.

    `raw.seccomp` stands for all lists. An allow list replaces everything else: what it does not name is killed.
    Otherwise the default deny list holds, and then what `deny` adds, as liblxc reads it: without an action a call is
    killed.

    Raises:
        BadRequest: a line is not understood; it is named.
        NotSupported: one asks for what pylxc does not do.
    """
    if raw := config.get("raw.seccomp"):
        return parse(raw)
    allowed = config.get("security.syscalls.allow") or config.get("security.syscalls.whitelist")
    if allowed:
        return "kill", tuple(SyscallRule(name, "allow") for name, _action in _lines(allowed))
    default = config.get("security.syscalls.deny_default") or config.get("security.syscalls.blacklist_default")
    denied = config.get("security.syscalls.deny") or config.get("security.syscalls.blacklist") or ""
    rules = [SyscallRule(name, _action(action, "kill")) for name, action in _lines(denied)]
    if INSTANCE.is_true({"security.syscalls.deny_default": default or ""}, "security.syscalls.deny_default"):
        named = {rule.name for rule in rules}
        rules += [SyscallRule(name, _ENOSYS) for name in _DEFAULT_DENIED if name not in named]
    return "allow", tuple(rules)


def foreign_abis(config: Mapping[str, str]) -> bool:
    """Return whether an instance may call the kernel by the ABIs of foreign and 32-bit programs."""
    new, old = "security.syscalls.deny_compat", "security.syscalls.blacklist_compat"
    return not (INSTANCE.is_true(config, new) or INSTANCE.is_true(config, old))


def parse(text: str) -> Policy:
    """Read a policy in liblxc's format, version 2; raises like `policy`."""
    lines = _numbered(text)
    number, version = next(lines, (1, ""))
    if version != "2":
        raise NotSupported(f"raw.seccomp line {number}: a policy of version 2 is needed: its first line is 2")
    number, head = next(lines, (number + 1, ""))
    kind, _, action = head.partition(" ")
    if kind not in _KINDS:
        raise BadRequest(f"raw.seccomp line {number}: allowlist or denylist is needed")
    is_allowlist = _KINDS[kind] == "allow"
    with_number = _Line(number)
    default = with_number.action(action, "kill") if is_allowlist else "allow"
    unnamed = "allow" if is_allowlist else with_number.action(action, "kill")
    rules = [rule for number, line in lines if (rule := _Line(number).rule(line, unnamed))]
    return default, tuple(rules)


class _Line:
    """One line of a policy, by its number in errors."""

    def __init__(self, number: int) -> None:
        self._where = f"raw.seccomp line {number}"

    def action(self, text: str, default: str) -> str:
        try:
            return _action(text, default)
        except BadRequest as error:
            raise BadRequest(f"{self._where}: {error.message}", hint=error.hint) from error

    def rule(self, line: str, default: str) -> SyscallRule | None:
        """Return the rule of a line, None for a section that holds everywhere."""
        if line.startswith("["):
            if line.lower() != "[all]":
                raise NotSupported(f"{self._where}: rules hold for all ABIs here: {line} cannot be; [all] can")
            return None
        if line == "reject_force_umount":
            return _FORCED_UMOUNT
        found = _RULE.fullmatch(line)
        if not found:
            raise BadRequest(f"{self._where}: 'CALL [ACTION] [[ARGUMENT,VALUE,OPERATOR,MASK]]' is needed, not {line!r}")
        name, action, conditions = found.groups()
        return SyscallRule(name, self.action(action, default), tuple(self._comparisons(conditions)))

    def _comparisons(self, text: str) -> Iterator[Comparison]:
        for part in re.findall(r"\[[^\]]*\]", text):
            found = _ARGUMENT.fullmatch(part)
            operator = _OPERATORS.get(found[3], found[3]) if found else ""
            if not found or operator not in _OPERATORS.values():
                raise BadRequest(
                    f"{self._where}: a condition is [ARGUMENT,VALUE,OPERATOR] or, for SCMP_CMP_MASKED_EQ, with a mask "
                    f"after that, not {part}"
                )
            if (operator == "&=") != (found[4] is not None):
                raise BadRequest(f"{self._where}: a mask goes with SCMP_CMP_MASKED_EQ only: {part}")
            yield Comparison(int(found[1]), operator, self._number(found[2]), self._number(found[4] or "0"))

    def _number(self, text: str) -> int:
        try:
            number = int(text, 0)
        except ValueError:
            raise BadRequest(f"{self._where}: {text!r} is no number") from None
        if number >= 1 << 64:
            raise BadRequest(f"{self._where}: {text} has more than 64 bits")
        return number


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if content := line.partition("#")[0].strip():
            yield number, content


def _lines(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        name, _, action = line.strip().partition(" ")
        if name:
            yield name, action.strip()


def _action(text: str, default: str) -> str:
    words = text.split()
    if not words:
        return default
    if words[0] == "errno" and len(words) == 2 and words[1].isdigit() and int(words[1]) < 4096:
        return f"errno:{words[1]}"
    if words in (["kill"], ["trap"], ["allow"]):
        return words[0]
    raise BadRequest(f"Unknown seccomp action {text!r}", hint="kill, trap, allow or errno NUMBER")
