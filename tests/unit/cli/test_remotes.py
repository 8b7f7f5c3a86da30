from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from pylxc.cli import settings
from pylxc.cli.remote_add import lxd_url
from pylxc.cli.remotes import LOCAL, Remote, Remotes
from pylxc.errors import BadRequest, Conflict, NotFound, NotSupported, PylxcError


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYLXC_CONF", str(tmp_path / "user"))
    monkeypatch.setenv("PYLXC_GLOBAL_CONF", str(tmp_path / "site"))


def write(directory: Path, data: object) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(data if isinstance(data, str) else json.dumps(data))


def mirror(name: str = "mirror") -> Remote:
    return Remote(name, {"addr": "https://m.example/x", "protocol": "simplestreams", "public": True})


def test_what_ships() -> None:
    shipped = {remote.name: (remote.protocol, remote.addr, remote.static) for remote in Remotes.load().all()}
    assert shipped == {
        "images": ("simplestreams", "https://images.linuxcontainers.org", False),
        "images-lxd": ("simplestreams", "https://images.lxd.canonical.com", False),
        "local": ("lxd", "unix://", True),
        "recipe": ("recipe", "", True),
        "ubuntu": ("simplestreams", "https://cloud-images.ubuntu.com/releases", False),
        "ubuntu-daily": ("simplestreams", "https://cloud-images.ubuntu.com/daily", False),
    }
    local = Remotes.load().get("local")
    assert all(getattr(local, key) == getattr(LOCAL, key) for key in Remote.__slots__)


def test_only_the_url_of_a_shipped_one_is_replaced(tmp_path: Path) -> None:
    Remotes.load().set_url("ubuntu", "https://127.0.0.1/r")
    assert json.loads((tmp_path / "user/config.json").read_text()) == {
        "remotes": {"ubuntu": {"addr": "https://127.0.0.1/r"}}
    }
    found = Remotes.load().get("ubuntu")
    assert (found.addr, found.protocol, found.public) == ("https://127.0.0.1/r", "simplestreams", True)
    assert Remotes.load(only_shipped=True).get("ubuntu").addr == "https://cloud-images.ubuntu.com/releases"


def test_the_site_overrides_what_ships_and_the_user_both(tmp_path: Path) -> None:
    write(
        tmp_path / "site", {"remotes": {"ubuntu": {"addr": "https://site/u"}, "images": None, "local": {"addr": "x"}}}
    )
    found = Remotes.load().get("ubuntu")
    assert (found.addr, found.protocol, found.site) == ("https://site/u", "simplestreams", True)
    assert "images" not in [remote.name for remote in Remotes.load().all()]
    assert Remotes.load().get("local").addr == "unix://"
    Remotes.load().set_url("ubuntu", "https://own/u")
    found = Remotes.load().get("ubuntu")
    assert (found.addr, found.site) == ("https://own/u", False)


def test_add_rename_switch_and_remove(tmp_path: Path) -> None:
    Remotes.load().add(mirror(), "PEM")
    path = tmp_path / "user/config.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    remotes = Remotes.load()
    assert remotes.certificate(remotes.get("mirror")) == "PEM"
    remotes.switch("mirror")
    assert settings.default_remote() == "mirror"
    with pytest.raises(BadRequest, match="Can't remove the default remote"):
        Remotes.load().remove("mirror")
    Remotes.load().rename("mirror", "other")
    remotes = Remotes.load()
    assert (remotes.default, remotes.get("other").addr) == ("other", "https://m.example/x")
    assert remotes.certificate(remotes.get("other")) == "PEM"
    assert not (tmp_path / "user/servercerts/mirror.crt").exists()
    remotes.switch("local")
    remotes.remove("other")
    assert json.loads(path.read_text()) == {"default-remote": "local", "remotes": {}}
    assert list((tmp_path / "user/servercerts").iterdir()) == []


def test_a_shipped_one_can_go_and_come_back() -> None:
    Remotes.load().rename("images", "old-images")
    remotes = Remotes.load()
    assert remotes.get("old-images").addr == "https://images.linuxcontainers.org"
    with pytest.raises(NotFound, match='The remote "images" doesn\'t exist'):
        remotes.get("images")
    with pytest.raises(NotFound, match="did you mean ubuntu\\?"):
        remotes.get("ubunto")
    remotes.add(mirror("images"))
    assert Remotes.load().get("images").addr == "https://m.example/x"


def test_a_sites_certificate_goes_along_with_a_new_url(tmp_path: Path) -> None:
    write(tmp_path / "site", {"remotes": {"s": {"addr": "https://s:8443", "public": True}}})
    (tmp_path / "site/servercerts").mkdir()
    (tmp_path / "site/servercerts/s.crt").write_text("PEM")
    Remotes.load().set_url("s", "https://t:8443")
    assert (tmp_path / "user/servercerts/s.crt").read_text() == "PEM"
    Remotes.load().remove("s")
    assert (tmp_path / "site/servercerts/s.crt").exists()


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda r: r.remove("local"), BadRequest, "Remote local is static and cannot be modified"),
        (lambda r: r.rename("recipe", "x"), BadRequest, "Remote recipe is static and cannot be modified"),
        (lambda r: r.set_url("local", "x"), BadRequest, "Remote local is static and cannot be modified"),
        (lambda r: r.set_url("nope", "x"), NotFound, "Remote nope doesn't exist"),
        (lambda r: r.remove("nope"), NotFound, "Remote nope doesn't exist"),
        (lambda r: r.switch("nope"), NotFound, "Remote nope doesn't exist"),
        (lambda r: r.rename("images", "ubuntu"), Conflict, "Remote ubuntu already exists"),
        (lambda r: r.rename("images", "../x"), BadRequest, "Invalid name"),
        (lambda r: r.check_new("local"), Conflict, "Remote local exists as <unix://>"),
        (lambda r: r.check_new("a:b"), BadRequest, "Remote names may not contain colons"),
        (lambda r: r.check_new(""), BadRequest, "Invalid name"),
        (lambda r: r.check_new("a\nb"), BadRequest, "Invalid name"),
    ],
)
def test_what_is_refused(change: object, error: type[PylxcError], text: str, tmp_path: Path) -> None:
    assert callable(change)
    with pytest.raises(error, match=text):
        change(Remotes.load())
    assert not (tmp_path / "user").exists()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("{", "is not valid JSON"),
        ("[]", "must be a map"),
        ({"remotes": []}, "must be a map"),
        ({"default-remote": 5}, "must be a map"),
        ({"remotes": {"x": "https://y"}}, "remote 'x' must be a map of texts"),
        ({"remotes": {"x": {"addr": ["y"]}}}, "remote 'x' must be a map of texts"),
        ({"remotes": {"x": {"addr": "y", "protocol": "ftp"}}}, "remote 'x' has the unknown protocol 'ftp'"),
    ],
)
def test_damaged_settings_are_named(data: object, text: str, tmp_path: Path) -> None:
    write(tmp_path / "user", data)
    with pytest.raises(BadRequest, match=text) as caught:
        Remotes.load()
    assert str(tmp_path / "user/config.json") in str(caught.value)


def test_what_others_wrote_into_the_settings_stays(tmp_path: Path) -> None:
    write(tmp_path / "user", {"aliases": {"a": "b"}, "remotes": {"x": {"addr": "https://x", "project": "p"}}})
    Remotes.load().set_url("x", "https://y")
    assert json.loads((tmp_path / "user/config.json").read_text()) == {
        "aliases": {"a": "b"},
        "remotes": {"x": {"addr": "https://y", "project": "p"}},
    }


@pytest.mark.parametrize(
    ("addr", "url"),
    [
        ("example.com", "https://example.com:8443"),
        ("https://example.com/", "https://example.com:8443"),
        ("example.com:443", "https://example.com:443"),
        ("10.0.0.1:1", "https://10.0.0.1:1"),
        ("fd00::1", "https://[fd00::1]:8443"),
        ("https://[fd00::1]:99/x", "https://[fd00::1]:99"),
    ],
)
def test_urls_of_lxd_servers(addr: str, url: str) -> None:
    assert lxd_url(addr) == url


@pytest.mark.parametrize(
    ("addr", "error"),
    [("http://x", BadRequest), ("x:port", BadRequest), ("unix:///x", NotSupported), ("/x/unix.socket", NotSupported)],
)
def test_urls_that_are_refused(addr: str, error: type[PylxcError]) -> None:
    with pytest.raises(error):
        lxd_url(addr)
