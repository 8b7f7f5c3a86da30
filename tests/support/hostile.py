"""Requests that mean ill, or were written in haste: Hypothesis strategies over the routes of the API."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any
from urllib.parse import quote, urlencode

from hypothesis import strategies as st

from pylxc.api.app import endpoints
from pylxc.api.call import Endpoint, Handler
from pylxc.config.device import DEVICES
from pylxc.config.key import Key
from pylxc.config.registry import TABLES

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
HOSTILE_NAMES = (
    "..", ".", "../..", "/", "a/b", "/etc/passwd", "%2F", "%", "a%00b", "\n", "a\nb", " ", "-rf", "--", "", "\u202e",
    "ü", "\U0001f4a9", "n" * 64, "n" * 300, "x" * 5000, "a'b\"c", "$(id)", "`id`", "*", "a?b#c", "null", "0", "-1",
    "é\u0301", "\x7f", "default", "\ud800",
)  # fmt: skip
"""Names with tricks; the last is no text at all: half of a surrogate pair, which JSON can hold."""
HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e308, -1e308, 2**31, 2**32, 2**63, -(2**63) - 1, 10**400, "", "true", "1", "\0",
    [], {}, [[]], [None], [1, "a", {}], {"": ""}, {"a": None}, {"a": {"b": {"c": []}}}, *HOSTILE_NAMES,
)  # fmt: skip
BODIES = {
    "empty": b"",
    "no JSON": b"{'a': 1}",
    "cut off": b'{"name": "x", "config": {"a"',
    "NaN": b'{"name": NaN, "timeout": Infinity, "config": {"a": -Infinity}}',
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"config":' * 50_000 + b"1" + b"}" * 50_000,
    "no UTF-8": b'{"name": "\xff\xfe"}',
    "UTF-16": '{"name": "a"}'.encode("utf-16"),
    "BOM": b'\xef\xbb\xbf{"name": "a"}',
    "twice": b'{"name": "a", "name": {"b": 1}, "config": {}, "config": []}',
    "long string": b'{"name": "' + b"a" * 10_000_000 + b'", "description": "b"}',
    "long key": b'{"config": {"user.' + b"k" * 10_000_000 + b'": "v"}}',
    "many keys": json.dumps({"config": {f"user.{i}": "v" for i in range(20_000)}}).encode(),
    "too large": b'"' + b"a" * (17 << 20) + b'"',
    "huge number": b'{"timeout": ' + b"9" * 100_000 + b', "width": 1e999999}',
    "zero byte": b'{"name": "a\\u0000b"}\0',
    "control characters": b'{"name": "a\x01\x02\nb"}',
}


@dataclass(frozen=True)
class Request:
    """One request; `body` is sent as it is."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(repr(self))  # Hypothesis shows all of the fields otherwise

    def __repr__(self) -> str:
        return f"{self.method} {self.path[:300]} {(self.body or b'')[:1000]!r} {dict(self.headers)}"


@st.composite
def requests(draw: st.DrawFn, real: Mapping[str, Sequence[str]], avoid: Sequence[str] = ()) -> Request:
    """Return requests to all endpoints and methods that there are.

    Args:
        draw: Hypothesis's.
        real: names of things that are there, by the name of the parameter or of the key that they can stand for.
        avoid: "METHOD PATH" of what would end the test itself.
    """
    routes = [(each, method) for each in endpoints() for method in METHODS if getattr(each, method.lower())]
    routes = [(each, method) for each, method in routes if f"{method} {each.path}" not in avoid]
    endpoint, method = draw(st.sampled_from(routes))
    return Maker(real, draw(st.randoms(use_true_random=False))).request(endpoint, method)


class Maker:
    """Makes requests: right ones, with something wrong here and there."""

    def __init__(self, real: Mapping[str, Sequence[str]], chance: Random) -> None:
        self.real = real
        self.chance = chance

    def request(self, endpoint: Endpoint, method: str) -> Request:
        """Return a request to an endpoint."""
        path = re.sub(r"\{(\w+)[^}]*\}", lambda found: _quoted(self.name(found[1])), endpoint.path)
        if self.once_in(20):
            path = path.replace("/instances", self.chance.choice(_PREFIXES), 1)
        query = {self.chance.choice(_QUERY): self.query_value() for _ in range(self.chance.choice((0, 0, 1, 2)))}
        if endpoint.path.endswith(("/files", "/templates")) and not self.once_in(10):
            query["path"] = self.chance.choice(_PATHS)
        if query:
            path += "?" + urlencode(query, errors="surrogatepass")
        many = self.chance.choice((0, 0, 1, 2))
        headers = {self.chance.choice(_HEADERS): self.chance.choice(_HEADER_VALUES) for _ in range(many)}
        body = self.body(getattr(endpoint, method.lower()))
        if method in ("GET", "HEAD") and body is not None:
            body = body[:1000]  # who sends much where nobody reads it, and does not read meanwhile, waits for himself
        return Request(method, path, body, headers)

    def once_in(self, times: int) -> bool:
        """Return whether to do what is to be done now and then."""
        return self.chance.randrange(times) == 0

    def name(self, key: str) -> str:
        """Return a name for a parameter of a path."""
        names = self.real.get(key, ())
        return self.chance.choice(HOSTILE_NAMES if not names or self.once_in(8) else names)

    def query_value(self) -> str:
        """Return the value of a parameter of a query."""
        return self.chance.choice(self.chance.choice((_QUERY_VALUES, HOSTILE_NAMES, self.real["name"])))

    def body(self, handler: Handler) -> bytes | None:
        """Return a body, more or less of the type that a handler takes."""
        wanted = _wire_type(handler)
        lot = self.chance.randrange(12)
        if lot == 0:
            return self.chance.choice(list(BODIES.values()))
        if lot == 1:
            return json.dumps(self.chance.choice(HOSTILE_VALUES)).encode()
        return None if wanted is None else json.dumps(self.value(wanted, "", wanted)).encode()

    def value(self, wanted: Any, key: str, root: Any, depth: int = 0) -> Any:
        """Return a value of a type, now and then of another one."""
        if self.once_in(40):
            return self.chance.choice(HOSTILE_VALUES)
        origin, args = typing.get_origin(wanted), typing.get_args(wanted)
        if typing.is_typeddict(wanted):
            hints = typing.get_type_hints(wanted)
            names = [name for name in hints if not self.once_in(10 if name in _NEEDED else 2)]
            return {name: self.value(hints[name], name, root, depth + 1) for name in names}
        if origin is dict:
            return self.map(args[1], key, root, depth)
        if origin is list:
            return [self.value(args[0], key, root, depth + 1) for _ in range(self.chance.randrange(4))]
        if origin in (types.UnionType, typing.Union):
            return self.value(self.chance.choice(args), key, root, depth)
        if wanted is str:
            return self.text(key)
        if wanted is bool:
            return self.once_in(2)
        return self.chance.choice(_NUMBERS) if wanted is int else None

    def map(self, inner: Any, key: str, root: Any, depth: int) -> dict[str, Any]:
        """Return an object whose keys are a user's."""
        if inner is str and key == "config":
            rows = [self.chance.choice(_keys(root.__name__)) for _ in range(self.chance.randrange(4))]
            return {row.name.replace("*", "x"): self.setting(row) for row in rows}
        if key == "devices":
            return {self.text("name"): self.device(root, depth) for _ in range(self.chance.randrange(3))}
        keys = [self.text("name") for _ in range(self.chance.randrange(3))]
        return {each: self.value(inner, each, root, depth + 1) for each in keys}

    def device(self, root: Any, depth: int) -> Any:
        """Return a device."""
        kind, table = self.chance.choice(list(DEVICES.items()))
        rows = [self.chance.choice(table.keys) for _ in range(self.chance.randrange(5))]
        return {"type": kind} | {row.name: self.setting(row) for row in rows} if rows else self.value(str, "", root)

    def setting(self, row: Key) -> Any:
        """Return a value of a configuration key."""
        if self.once_in(10):
            return self.chance.choice(HOSTILE_VALUES)
        return self.chance.choice(_SETTINGS.get(row.type, (*_COMMON, row.default)))

    def text(self, key: str) -> str:
        """Return a string."""
        words = (*self.real.get(key, ()), *_WORDS.get(key, ()))
        if not words:
            words = (*self.real["name"], *_COMMON)
        return self.chance.choice(HOSTILE_NAMES if self.once_in(15) else words)


def _quoted(name: str) -> str:
    return quote(name.encode("utf-8", "surrogatepass"), safe="") or "%20"


@cache
def _keys(wire_type: str) -> list[Key]:
    """Return the configuration keys of what a type of a request is about."""
    scopes = {
        "Instance": "instance",
        "Profile": "instance",
        "Network": "network-",
        "StoragePool": "storage-",
        "Server": "server",
    }
    scopes |= {"StorageVolume": "storage-volume", "Project": "project"}
    wanted = next((scope for word, scope in reversed(scopes.items()) if wire_type.startswith(word)), "")
    return [key for name, table in TABLES.items() if name.startswith(wanted) for key in table.keys]


@cache
def _wire_type(handler: Handler) -> Any:
    """Return the type that a handler takes its body for: the argument of `call.body` or `check` in its source."""
    module = inspect.getmodule(handler)
    source = inspect.getsource(handler)
    if "_update(call" in source:
        source += inspect.getsource(module._update)  # type: ignore[union-attr]
    found = re.search(r"(?:call\.body\(|check\(\w+, )([\w.]+)\)", source)
    value: Any = module
    for part in found[1].split(".") if found else ():
        value = getattr(value, part)
    return value if found else None


_QUERY = (
    "project", "all-projects", "recursion", "filter", "target", "path", "timeout", "type", "secret", "instance-type",
    "tree", "compression", "alias", "protocol", "server", "fingerprint", "force", "volume-only", "log",
)  # fmt: skip
_HEADERS = (
    "If-Match", "X-LXD-uid", "X-LXD-mode", "X-LXD-type", "X-LXD-write", "X-LXD-name", "X-LXD-pool", "X-LXD-properties",
    "X-LXD-fingerprint", "X-LXD-public", "X-Incus-gid", "Content-Type", "Range", "Prefer", "Upgrade", "Accept-Encoding",
    "If-Modified-Since", "Content-Encoding",
)  # fmt: skip
_HEADER_VALUES = (
    "", "x", "-1", "0", "1", "99999999999999999999", "0644", "0o7777777", "directory", "symlink", "tree", "append",
    "wait=1", "application/octet-stream", "multipart/form-data", "multipart/form-data; boundary=x", "bytes=0-",
    "bytes=9-1,-5", "../../x", "a=%00&b=%2F..", '"*"', "*", "websocket", "pylxc-exec", "gzip", "Thu, 99 Foo 9999",
)  # fmt: skip
_QUERY_VALUES = (
    "1", "2", "0", "true", "-1", "nan", "1e9", "inf", "/", "/etc/../etc/passwd", "//", "p" * 5000,
    "name eq .*", "name eq (a+)+$", "not", "and or", "config.user.x eq 1 or", "name eq [", 'name eq "', "a.b.c eq x",
)  # fmt: skip
_PREFIXES = ("/containers", "/virtual-machines", "//instances", "/%69nstances")
_PATHS = (
    "/etc/hostname", "/tmp/x", "/tmp/x/y", "/tmp", "/", "/proc/self/mem", "/dev/null", "../..", "/tmp/" + "a" * 300,
    "x.tpl", "hosts.tpl",
)  # fmt: skip
_NEEDED = ("name", "type", "source", "action", "command", "state", "driver", "listen_address", "target", "condition")
_NUMBERS = (0, 1, 3, -1, 80, 65536, 2**31, 2**32 - 1, 2**63 - 1)
_COMMON = (
    "", "1", "true", "auto", "none", "10GiB", "/dev/null", "/", "/tmp", "tmpfs:", "99999999999999999999GiB", "0-3",
    "tcp:0.0.0.0:80",
)  # fmt: skip
_SETTINGS: dict[str, Sequence[str]] = {
    "bool": ("true", "false", "maybe"),
    "integer": ("0", "1", "80", "-1", "99999999999999999999", "1.5"),
    "size": ("1MiB", "10GiB", "0", "-1", "99999999999999999999GiB"),
}
_WORDS: dict[str, Sequence[str]] = {
    "type": (
        "none", "image", "copy", "migration", "instance", "snapshot", "disk", "nic", "container", "custom", "url",
        "bridge",
    ),
    "action": ("start", "stop", "restart", "freeze", "unfreeze"),
    "driver": ("dir", "btrfs", "zfs"),
    "protocol": ("simplestreams", "lxd", "recipe", "tcp"),
    "mode": ("pull", "push"),
    "condition": ("running", "ip", "port:80", "exec", "boot"),
    "expires_at": ("2030-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2030-01-01"),
    "compression_algorithm": ("none", "gzip", "zstd -22", "gzip; id", "sh"),
    "server": ("https://127.0.0.1:1", "http://[", "https://", "file:///etc/passwd"),
    "listen_address": ("10.0.0.1", "::1", "::", "10.0.0.1/8"),
    "architecture": ("x86_64", "riscv128"),
    "name": ("n1", "n2", "eth0", "root"),
    "command": ("true", "sh", "-c", "echo", "/nonexistent"),
}  # fmt: skip
