"""Find the endpoint of a path, on its raw, percent-encoded form: `ubuntu%2F22.04` is one segment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

from pylxc.api.call import Endpoint
from pylxc.errors import BadRequest, NotFound

_LEGACY = ("containers", "virtual-machines")


@dataclass(slots=True)
class _Node:
    literals: dict[str, _Node] = field(default_factory=dict)
    variable: _Node | None = None
    name: str = ""
    endpoint: Endpoint | None = None
    rest: tuple[str, Endpoint] | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """What `Router.find` has found; `legacy` is the word that stood in place of "instances", else ""."""

    endpoint: Endpoint
    params: dict[str, str]
    legacy: str


class Router:
    """A tree of path segments. A literal segment wins over a variable one."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._root = _Node()
        for endpoint in endpoints:
            self._add(endpoint)

    def find(self, raw_path: str) -> Match:
        """Return the endpoint of a raw path without its query.

        Raises:
            NotFound: no endpoint has this path.
            BadRequest: a segment is no UTF-8 or holds a zero byte.
        """
        segments = raw_path.split("/")[1:]
        legacy = segments[1] if len(segments) > 1 and segments[0] == "1.0" and segments[1] in _LEGACY else ""
        if legacy:
            segments[1] = "instances"
        node: _Node | None = self._root
        params: dict[str, str] = {}
        for index, segment in enumerate(segments):
            if node is None:
                break
            if (literal := node.literals.get(segment)) is not None:
                node = literal
            elif node.rest is not None and segment:
                params[node.rest[0]] = _unescape("/".join(segments[index:]))
                return Match(node.rest[1], params, legacy)
            elif node.variable is not None and segment:
                params[node.name] = _unescape(segment)
                node = node.variable
            else:
                node = None
        if node is None or node.endpoint is None:
            raise NotFound("not found")
        return Match(node.endpoint, params, legacy)

    def _add(self, endpoint: Endpoint) -> None:
        node = self._root
        for segment in endpoint.path.split("/")[1:]:
            if segment.endswith(":*}"):
                node.rest = (segment[1:-3], endpoint)
                return
            if segment.startswith("{"):
                if node.variable is None:
                    node.variable, node.name = _Node(), segment[1:-1]
                if node.name != segment[1:-1]:
                    raise ValueError(f"{endpoint.path}: this segment is called {node.name!r} elsewhere")
                node = node.variable
            else:
                node = node.literals.setdefault(segment, _Node())
        if node.endpoint is not None:
            raise ValueError(f"{endpoint.path} is there twice")
        node.endpoint = endpoint


def _unescape(segment: str) -> str:
    try:
        text = unquote(segment, errors="strict")
    except UnicodeDecodeError as error:
        raise BadRequest("The request's path is no UTF-8") from error
    if "\0" in text:
        raise BadRequest("The request's path holds a zero byte")
    return text
