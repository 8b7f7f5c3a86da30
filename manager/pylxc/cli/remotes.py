"""The remotes: those that ship with pylxc, the site's, and the user's own, each overriding the ones before."""

from __future__ import annotations

import os

from pylxc.cli import settings
from pylxc.errors import BadRequest, Conflict, NotFound, PylxcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PROTOCOLS = ("simplestreams", "lxd", "recipe")
_FIELDS = ("addr", "auth_type", "domain", "project", "protocol", "public")


class Remote:
    """Where instances or images are.

    Attributes:
        name: how it is called before the colon.
        addr: the server's URL; `unix://` for the local one, empty for recipes.
        protocol: "lxd", "simplestreams", or "recipe".
        public: it holds images for everybody, and nothing else.
        static: it cannot be changed.
        site: the site's settings say so, and the user's do not.
        auth_type: how a server that is not public knows its users, empty where there is nothing to say.
        domain: what `auth_type` "candid" needs.
        project: the project that is worked in on that server, empty for the user's choice.
    """

    __slots__ = ("addr", "auth_type", "domain", "name", "project", "protocol", "public", "site", "static")

    def __init__(self, name: str, fields: dict[str, Any]) -> None:
        self.name = name
        self.addr = str(fields.get("addr") or "")
        self.protocol = str(fields.get("protocol") or "lxd")
        self.public = bool(fields.get("public", False))
        self.static = bool(fields.get("static", False))
        self.site = bool(fields.get("site", False))
        self.auth_type = str(fields.get("auth_type") or "")
        self.domain = str(fields.get("domain") or "")
        self.project = str(fields.get("project") or "")

    @property
    def is_server(self) -> bool:
        """Whether it has instances."""
        return self.protocol == "lxd" and not self.public

    def fields(self) -> dict[str, Any]:
        """Return what the settings hold of it."""
        found = {key: getattr(self, key) for key in _FIELDS}
        return {key: value for key, value in found.items() if value or key in {"addr", "public"}}


LOCAL = Remote(settings.LOCAL, {"addr": "unix://", "protocol": "lxd", "static": True})
"""As images/remotes.yaml has it; what goes to the local server need not read that."""


class Remotes:
    """All remotes; what changes them writes the user's settings.

    Args:
        shipped: the definitions that come with pylxc.
        only_shipped: take no notice of anybody's settings (`--force-local`).

    Raises:
        BadRequest: a file of settings is damaged.
    """

    def __init__(self, shipped: dict[str, dict[str, Any]], *, only_shipped: bool = False) -> None:
        self._shipped = shipped
        self._site = {} if only_shipped else _definitions(settings.site_dir())
        self._settings = {} if only_shipped else settings.read(settings.user_dir())
        self._own = {} if only_shipped else _definitions(settings.user_dir(), self._settings)

    @classmethod
    def load(cls, *, only_shipped: bool = False) -> Remotes:
        """Return the remotes of this user."""
        import yaml

        from pylxc.resources import resource_dir

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        shipped = yaml.load((resource_dir("images") / "remotes.yaml").read_text(encoding="utf-8"), loader)  # noqa: S506
        return cls(shipped, only_shipped=only_shipped)

    @property
    def default(self) -> str:
        """The name of the remote that names without one are on."""
        return str(self._settings.get("default-remote") or settings.LOCAL)

    def all(self) -> list[Remote]:
        """Return the remotes, by name."""
        names = sorted({*self._shipped, *self._site, *self._own})
        return [remote for name in names if (remote := self._find(name))]

    def get(self, name: str) -> Remote:
        """Return the remote `name`.

        Raises:
            NotFound: there is none.
        """
        remote = self._find(name)
        if remote is None:
            from difflib import get_close_matches

            near = get_close_matches(name, [one.name for one in self.all()], 1)
            hint = f"did you mean {near[0]}?" if near else "pylxc remote list shows those that do"
            raise NotFound(f'The remote "{name}" doesn\'t exist', hint=hint)
        return remote

    def _find(self, name: str) -> Remote | None:
        fields: dict[str, Any] | None = self._shipped.get(name)
        if fields and fields.get("static"):
            return Remote(name, fields)
        for layer, is_site in ((self._site, True), (self._own, False)):
            if name in layer:
                above = layer[name]
                fields = None if above is None else {**(fields or {}), **above, "site": is_site}
        return Remote(name, fields) if fields else None

    def need_server(self, name: str) -> None:
        """Check that the remote `name` has instances.

        Raises:
            NotFound: there is no such remote.
            BadRequest: it holds images only.
        """
        if not self.get(name).is_server:
            hint = "it is the default remote; pylxc remote switch local" if name == self.default else ""
            raise BadRequest(f'The remote "{name}" holds images only', hint=hint)

    # -- certificates ---------------------------------------------------------------------------------------------

    def certificate(self, remote: Remote) -> str:
        """Return the certificate that the server of `remote` must show, as PEM; empty: one that the host trusts."""
        try:
            with open(_certificate_path(remote), encoding="ascii") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    # -- changes --------------------------------------------------------------------------------------------------

    def check_new(self, name: str) -> None:
        """Check that a remote may be called `name`.

        Raises:
            BadRequest: the name is no good.
            Conflict: there is one already.
        """
        if ":" in name:
            raise BadRequest("Remote names may not contain colons")
        if not name or "/" in name or name[0] in "-." or not name.isprintable() or " " in name:
            raise BadRequest(f"Invalid name of a remote: {name!r}")
        present = self._find(name)
        if present is not None:
            raise Conflict(f"Remote {name} exists as <{present.addr}>")

    def add(self, remote: Remote, certificate: str = "") -> None:
        """Add a remote whose name `check_new` has passed, with the certificate to pin (PEM), if any."""
        if certificate:
            _write(_certificate_path(remote), certificate)
        self._change(lambda own, _: own.update({remote.name: remote.fields()}))

    def remove(self, name: str) -> None:
        """Forget a remote.

        Raises:
            NotFound, BadRequest: there is none, it is static, or it is the default.
        """
        remote = self.changeable(name)
        if name == self.default:
            raise BadRequest("Can't remove the default remote")
        self._change(lambda own, _: self._hide(own, name))
        if not remote.site:
            _unlink(_certificate_path(remote))

    def rename(self, name: str, new: str) -> None:
        """Rename a remote, with its certificate.

        Raises:
            NotFound, BadRequest, Conflict: there is none, it is static, or the new name is no good.
        """
        remote = self.changeable(name)
        if self._find(new):
            raise Conflict(f"Remote {new} already exists")
        self.check_new(new)
        certificate = self.certificate(remote)
        if certificate:
            _write(_certificate_path(Remote(new, remote.fields())), certificate)

        def change(own: dict[str, Any], all_settings: dict[str, Any]) -> None:
            own[new] = remote.fields()
            self._hide(own, name)
            if all_settings.get("default-remote") == name:
                all_settings["default-remote"] = new

        self._change(change)
        if not remote.site:
            _unlink(_certificate_path(remote))

    def set_url(self, name: str, url: str) -> None:
        """Give a remote another URL; the rest of its definition stays.

        Raises:
            NotFound, BadRequest: there is no such remote, or it is static.
        """
        remote = self.changeable(name)
        if remote.site and (certificate := self.certificate(remote)):
            _write(_certificate_path(Remote(name, remote.fields())), certificate)
        self._change(lambda own, _: own.update({name: {**(own.get(name) or {}), "addr": url}}))

    def switch(self, name: str) -> None:
        """Make a remote the default.

        Raises:
            NotFound: there is none.
        """
        if self._find(name) is None:
            raise NotFound(f"Remote {name} doesn't exist")
        self._change(lambda _, all_settings: all_settings.update({"default-remote": name}))

    def switch_project(self, project: str) -> None:
        """Make a project the one that is worked in on the local server where none is named."""
        self._change(
            lambda own, _: own.update({settings.LOCAL: {**(own.get(settings.LOCAL) or {}), "project": project}})
        )

    def changeable(self, name: str) -> Remote:
        """Return the remote `name`, which may be changed.

        Raises:
            NotFound, BadRequest: there is none, or it is static.
        """
        remote = self._find(name)
        if remote is None:
            raise NotFound(f"Remote {name} doesn't exist")
        if remote.static:
            raise BadRequest(f"Remote {name} is static and cannot be modified")
        return remote

    def _hide(self, own: dict[str, Any], name: str) -> None:
        """Take the remote out of the user's own; where it is others' too, note that it is not wanted."""
        if name in self._shipped or name in self._site:
            own[name] = None
        else:
            own.pop(name, None)

    def _change(self, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
        """Let `change` work on the user's own remotes and all of the user's settings, and write them.

        They are read again under a lock: two commands may change them at once.
        """
        import fcntl
        import json

        directory = settings.user_dir()
        os.makedirs(directory, mode=0o700, exist_ok=True)
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = settings.read(directory)
            found.setdefault("remotes", {})
            change(found["remotes"], found)
            _write(f"{directory}/{settings.FILE}", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        finally:
            os.close(lock)
        self._settings, self._own = found, found["remotes"]


def _definitions(directory: str, found: dict[str, Any] | None = None) -> dict[str, dict[str, Any] | None]:
    """Return the remotes in the settings of a directory: fields by name, None for one that is not wanted.

    Raises:
        BadRequest: one is malformed; the message names it.
    """
    remotes = (settings.read(directory) if found is None else found).get("remotes", {})
    for name, fields in remotes.items():
        if fields is None:
            continue
        where = f"{directory}/{settings.FILE}: the remote {name!r}"
        if not isinstance(fields, dict) or not all(isinstance(fields.get(key, ""), str | bool) for key in _FIELDS):
            raise BadRequest(f"{where} must be a map of texts")
        if fields.get("protocol", "lxd") not in PROTOCOLS:
            raise BadRequest(f"{where} has the unknown protocol {fields['protocol']!r}")
    return dict(remotes)


def _certificate_path(remote: Remote) -> str:
    return f"{settings.site_dir() if remote.site else settings.user_dir()}/servercerts/{remote.name}.crt"


def _write(path: str, text: str) -> None:
    """Write a file whole or not at all, for its owner only: an URL may hold a password."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        _unlink(temporary)
        raise PylxcError(f"{path} cannot be written: {error.strerror}") from error


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
