"""Who may ask for what: the one place that says so. What is not named here is for who is trusted without restriction.

A restricted caller works in its projects. It sees what these use of other projects (images, networks, profiles and
volumes of the default project, where a project has none of its own) and changes none of that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from pylxc.api.responses import Answer, Sync
from pylxc.errors import Forbidden, NotFound
from pylxc.services.certificates.caller import Caller
from pylxc.services.images import places

if TYPE_CHECKING:
    from pylxc.api.call import Call, Endpoint

_DENIED = "not authorized"
_READING = ("GET", "HEAD")
_METRICS = "/1.0/metrics"
_INTERNAL = "/internal/"

Rule = Callable[["Call"], bool]


def _own_project(call: Call) -> bool:
    """Everything, in a project of the caller's."""
    return call.caller.may_enter(call.project)


def _owned(feature: str) -> Rule:
    """Everything, in a project of the caller's that has `feature` of its own, or another's that is the caller's too."""

    def rule(call: Call) -> bool:
        return _own_project(call) and call.caller.may_enter(call.services.projects.scope(call.project, feature))

    return rule


def _own_or_used(feature: str) -> Rule:
    """Reading in a project of the caller's; changing, too, where that has `feature` of its own."""
    owned = _owned(feature)

    def rule(call: Call) -> bool:
        return _own_project(call) if call.request.method in _READING else owned(call)

    return rule


def _reading(call: Call) -> bool:
    """Reading what is the same for everybody, or what its handler makes a choice of."""
    return call.request.method in _READING


def _one_project(call: Call) -> bool:
    """Reading about a project of the caller's."""
    return call.request.method in _READING and call.caller.may_enter(call.params["name"])


def _own_operation(call: Call) -> bool:
    """An operation of a project of the caller's."""
    return call.caller.may_enter(call.services.operations.get(call.params["id"]).project)


def _named_project(call: Call) -> bool:
    """Reading in a project that is named: without a name, this is about all of them."""
    return call.request.method in _READING and call.caller.may_enter(call.request.query.get("project", ""))


def _anything(_call: Call) -> bool:
    """What its handler looks after."""
    return True


_EXACT: dict[str, Rule] = {
    "/": _reading,
    "/1.0": _reading,
    "/1.0/certificates": _reading,
    "/1.0/certificates/{fingerprint}": _anything,
    "/1.0/cluster": _reading,
    "/1.0/events": _own_project,
    "/1.0/images/{fingerprint}/export": _own_project,
    "/1.0/images/{fingerprint}/secret": _own_project,
    "/1.0/metadata/configuration": _reading,
    _METRICS: _named_project,
    "/1.0/networks/{network}/leases": _owned("networks"),
    "/1.0/operations": _own_project,
    "/1.0/operations/{id}": _own_operation,
    "/1.0/operations/{id}/wait": _own_operation,
    "/1.0/operations/{id}/websocket": _own_operation,
    "/1.0/projects": _reading,
    "/1.0/projects/{name}": _one_project,
    "/1.0/projects/{name}/state": _one_project,
    "/1.0/resources": _reading,
    "/1.0/storage-pools": _reading,
    "/1.0/storage-pools/{pool}": _reading,
    "/1.0/storage-pools/{pool}/resources": _reading,
}
_BELOW: dict[str, Rule] = {
    "/1.0/images": _own_or_used("images"),
    "/1.0/instances": _own_project,
    "/1.0/networks": _own_or_used("networks"),
    "/1.0/profiles": _own_or_used("profiles"),
    "/1.0/storage-pools/{pool}/volumes": _own_or_used("storage.volumes"),
}
"""For these paths and all below them."""


async def permit(call: Call, endpoint: Endpoint) -> None:
    """Raise unless the caller may do this.

    Raises:
        Forbidden: it may not.
        NotFound: nor may it know whether there is such a thing; or there is no such project.
    """
    caller = call.caller
    if caller.fingerprint and endpoint.path.startswith(_INTERNAL):
        raise Forbidden("not authorized: this is for the server's unix socket")
    if caller.trusted and not caller.restricted:
        return
    if call.request.method in endpoint.untrusted and not caller.trusted and not call.flag("all-projects"):
        return
    if endpoint.path == _METRICS and caller.reads_metrics and call.request.method in _READING:
        return
    if not caller.trusted:
        raise Forbidden(_DENIED)
    rule = _rule(endpoint.path)
    if rule is _own_operation and not await call.run(rule, call):
        raise NotFound("Operation not found")
    if rule is None or call.flag("all-projects") or not await call.run(rule, call):
        raise Forbidden("not authorized: this certificate is restricted to its projects")


def permit_body(caller: Caller, body: Any) -> None:
    """Raise Forbidden when a request's body names a project, wherever in it, that is not for the caller."""
    if not caller.restricted:
        return
    left = [body]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            project = item.get("project")
            if isinstance(project, str) and project and not caller.may_enter(project):
                raise Forbidden(f"not authorized: this certificate is not for project {project!r}")
            left += item.values()
        elif isinstance(item, list):
            left += item


def permit_source(caller: Caller, body: Any) -> None:
    """Permit a body that has an image's source like `permit_body`; one elsewhere names a project there, if any.

    Raises:
        Forbidden: a project is not for the caller, or the source is none that it may have the server ask.
    """
    source = body.get("source") if isinstance(body, dict) else None
    place = ""
    if isinstance(source, dict):
        key = {"image": "server", "url": "url"}.get(str(source.get("type")), "")
        given = source.get(key)
        place = given if isinstance(given, str) else ""
        permit_place(caller, place)
    permit_body(caller, {**body, "source": None} if place else body)


def permit_place(caller: Caller, url: str) -> None:
    """Raise Forbidden when a restricted caller would have this server speak with what only this host reaches."""
    if caller.restricted and url and places.is_near(url):
        raise Forbidden("not authorized: this certificate is not for the host's own addresses")


def filtered(caller: Caller, answer: Answer) -> Answer:
    """Return an answer without what it tells a restricted caller of the use that other projects make of things."""
    if caller.restricted and isinstance(answer, Sync):
        return Sync(_without_others(caller, answer.metadata), answer.etag)
    return answer


def _without_others(caller: Caller, item: Any) -> Any:
    if isinstance(item, list):
        return [_without_others(caller, each) for each in item]
    if not isinstance(item, dict):
        return item
    return {
        key: [url for url in value if caller.may_enter(_project_of(url))] if key == "used_by" else value
        for key, value in item.items()
    }


def _project_of(url: str) -> str:
    return parse_qs(urlsplit(url).query).get("project", ["default"])[0]


def _rule(path: str) -> Rule | None:
    if path in _EXACT:
        return _EXACT[path]
    return next((rule for below, rule in _BELOW.items() if path == below or path.startswith(f"{below}/")), None)
