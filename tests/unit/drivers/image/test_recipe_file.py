"""Recipe files: those that ship, and what is wrong with others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pylxc.drivers.image.recipe_file import RecipeBook
from pylxc.errors import BadRequest, NotFound
from pylxc.resources import resource_dir

LEAST = {"description": "x", "os": "X", "release": "1", "archive": "debian", "suites": ["bookworm"]}


def book(tmp_path: Path, **recipes: object) -> RecipeBook:
    import yaml

    for name, content in recipes.items():
        (tmp_path / f"{name}.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return RecipeBook(str(tmp_path), str(tmp_path / "missing"))


def test_shipped_recipes() -> None:
    shipped = RecipeBook(str(resource_dir("images")))
    assert {"busybox", "debian-12", "debian-13"} <= {recipe.name for recipe in shipped.all()}
    trixie = shipped.find("debian/13")
    assert trixie.suites == ("trixie", "trixie-updates")
    assert trixie.packages == shipped.find("debian/bookworm").packages
    assert trixie.files["/etc/machine-id"].content == ""


def test_every_shipped_file_is_a_recipe() -> None:
    names = [path.stem for path in resource_dir("images").glob("*.yaml") if path.stem != "remotes"]
    shipped = RecipeBook(str(resource_dir("images")))
    assert sorted(names) == sorted(shipped.load(name)[0].name for name in names)


def test_found_by_alias_or_file_name(tmp_path: Path) -> None:
    recipes = book(tmp_path, mine={**LEAST, "aliases": ["a/b", "c"]})
    assert {recipes.find(name).name for name in ("a/b", "c", "mine")} == {"mine"}
    with pytest.raises(NotFound):
        recipes.find("../mine")


def test_own_recipe_hides_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "busybox.yaml").write_text("extends: debian-12\naliases: [busybox]\ndescription: mine\n")
    recipes = RecipeBook(str(tmp_path), str(resource_dir("images")))
    assert recipes.find("busybox").description == "mine"


def test_extends(tmp_path: Path) -> None:
    base = {**LEAST, "packages": ["a"], "files": {"/a": "1", "/b": "1"}}
    child = {"extends": "base", "packages": ["b"], "files": {"/b": {"content": "2", "mode": 0o755}}}
    found = book(tmp_path, base=base, child=child).find("child")
    assert found.packages == ("b",)
    assert {path: (file.content, file.mode) for path, file in found.files.items()} == {
        "/a": ("1", 0o644),
        "/b": ("2", 0o755),
    }


def test_lists_are_added_to_with_a_plus(tmp_path: Path) -> None:
    base = {**LEAST, "packages": ["a"]}
    child = {"extends": "base", "packages+": ["b"], "commands+": ["true"]}
    found = book(tmp_path, base=base, child=child).find("child")
    assert (found.packages, found.commands) == (("a", "b"), ("true",))


def test_variants(tmp_path: Path) -> None:
    cloud = {"packages+": ["c"], "files": {"/c": "1"}, "description": "in the cloud"}
    base = {**LEAST, "aliases": ["x/1", "x/one"], "packages": ["a"], "variants": {"cloud": cloud}}
    child = {"extends": "base", "aliases": ["x/2"], "packages": ["b"], "variants": {"cloud": {"packages+": ["d"]}}}
    recipes = book(tmp_path, base=base, child=child)
    assert [recipe.name for recipe in recipes.all()] == ["base", "base/cloud", "child", "child/cloud"]
    found = recipes.find("x/one/cloud")
    assert (found.name, found.aliases, found.variant) == ("base/cloud", ("x/1/cloud", "x/one/cloud"), "cloud")
    assert (found.description, found.packages) == ("in the cloud", ("a", "c"))
    assert recipes.find("x/1").variant == "default"
    assert recipes.find("child/cloud").packages == ("b", "c", "d")
    assert recipes.find("x/2/cloud").files["/c"].content == "1"


def test_shipped_ubuntu() -> None:
    shipped = RecipeBook(str(resource_dir("images")))
    jammy, noble = shipped.find("ubuntu/22.04"), shipped.find("ubuntu/noble")
    assert (jammy.archive, jammy.security, jammy.properties["version"]) == ("ubuntu", "", "22.04")
    assert set(noble.packages) - set(jammy.packages) == {"systemd-resolved"}
    assert "cloud-init" in shipped.find("ubuntu/jammy/cloud").packages


def test_a_text_that_is_a_recipe(tmp_path: Path) -> None:
    recipes = book(tmp_path, base={**LEAST, "packages": ["a"], "variants": {"cloud": {}}})
    found = recipes.read("web", "extends: base\npackages+: [nginx]\n")
    assert (found.name, found.packages) == ("web", ("a", "nginx"))
    for name, text, expected in (
        ("../web", "extends: base", "Invalid name"),
        ("web", "extends: missing", "no recipe 'missing'"),
        ("web", "- [", "Recipe 'web' cannot be read"),
        ("web", "a: " + "[" * 100_000, "Recipe 'web' cannot be read"),
        ("web", "release: 2020-99-99", "Recipe 'web' cannot be read"),
        ("web", "nothing", "Recipe 'web' is no map"),
    ):
        with pytest.raises((BadRequest, NotFound), match=expected) as refused:
            recipes.read(name, text)
        assert "\n" not in str(refused.value)


def test_shipped_cloud_variants() -> None:
    shipped = RecipeBook(str(resource_dir("images")))
    for alias in ("debian/12/cloud", "debian/trixie/cloud"):
        cloud = shipped.find(alias)
        assert {"cloud-init", "dbus", "openssh-server"} <= set(cloud.packages)
        seeds = {path for path in cloud.templates if path.startswith("/var/lib/cloud/seed/nocloud-net/")}
        assert {path.rpartition("/")[2] for path in seeds} == {
            "meta-data",
            "network-config",
            "user-data",
            "vendor-data",
        }
        assert "/etc/hostname" in cloud.templates


def test_version_follows_the_content(tmp_path: Path) -> None:
    recipes = book(tmp_path, base=LEAST, child={"extends": "base"})
    before = recipes.find("child").version
    assert recipes.find("child").version == before
    book(tmp_path, base={**LEAST, "packages": ["more"]})
    assert recipes.find("child").version != before


def test_modes_of_both_yamls(tmp_path: Path) -> None:
    files = "files: {/a: {mode: 0755}, /b: {mode: 0o755}, /c: {mode: '755'}}"
    text = f"description: x\nos: X\nrelease: 1\narchive: debian\nsuites: [a]\n{files}\n"
    assert {file.mode for file in book(tmp_path, r=text).find("r").files.values()} == {0o755}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[]", "no map"),
        ("a: [", "cannot be read"),
        ({"extends": "missing"}, "no recipe 'missing'"),
        ({"extends": "r"}, "end somewhere"),
        ({**LEAST, "packges": []}, "unknown key 'packges'"),
        ({**LEAST, "suites": []}, "'suites' is missing"),
        ({**LEAST, "packages": "a"}, "list of texts"),
        ({**LEAST, "packages": [["a"]]}, "must be a text"),
        ({**LEAST, "base": "huge"}, "'base' must be one of"),
        ({**LEAST, "files": {"etc/x": ""}}, "absolute path"),
        ({**LEAST, "files": {"/etc/../x": ""}}, "absolute path"),
        ({**LEAST, "files": {"/x": {"mode": "rwx"}}}, "mode"),
        ({**LEAST, "files": {"/x": {"owner": "me"}}}, "must be a text"),
        ({**LEAST, "templates": {"/x": "text"}}, "template"),
        ({**LEAST, "variants": {"cloud": ["a"]}}, "variant 'cloud'"),
        ({**LEAST, "variants": {"a/b": {}}}, "variant 'a/b'"),
        ({**LEAST, "variants": {"a": {"variants": {}}}}, "variant 'a'"),
        ({**LEAST, "variants": {"a": {"packges+": ["x"]}}}, "'packges+'"),
        ({**LEAST, "variants": {"a": {"packages+": "x"}}}, "'packages+'"),
        ({**LEAST, "variants": ["cloud"]}, "'variants' must be a map"),
    ],
)
def test_wrong(tmp_path: Path, content: object, text: str) -> None:
    with pytest.raises((BadRequest, NotFound), match=re.escape(text)) as refused:
        book(tmp_path, r=content).load("r")
    assert "\n" not in str(refused.value)


def test_broken_file_is_named_when_asked_for_and_hides_no_other(tmp_path: Path) -> None:
    recipes = book(tmp_path, good=LEAST, bad={**LEAST, "aliases": ["b/1"], "wrong": 1})
    assert [recipe.name for recipe in recipes.all()] == ["good"]
    assert recipes.find("good").name == "good"
    for name in ("bad", "b/1"):
        with pytest.raises(BadRequest, match="unknown key 'wrong'"):
            recipes.find(name)
