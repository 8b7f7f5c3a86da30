"""Recipe files: those that ship, and what is wrong with others."""

from __future__ import annotations

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
    assert sorted(names) == sorted(shipped.load(name).name for name in names)


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
    found = book(tmp_path, base=base, child=child).load("child")
    assert found.packages == ("b",)
    assert {path: (file.content, file.mode) for path, file in found.files.items()} == {
        "/a": ("1", 0o644),
        "/b": ("2", 0o755),
    }


def test_version_follows_the_content(tmp_path: Path) -> None:
    recipes = book(tmp_path, base=LEAST, child={"extends": "base"})
    before = recipes.load("child").version
    assert recipes.load("child").version == before
    book(tmp_path, base={**LEAST, "packages": ["more"]})
    assert recipes.load("child").version != before


def test_modes_of_both_yamls(tmp_path: Path) -> None:
    files = "files: {/a: {mode: 0755}, /b: {mode: 0o755}, /c: {mode: '755'}}"
    text = f"description: x\nos: X\nrelease: 1\narchive: debian\nsuites: [a]\n{files}\n"
    assert {file.mode for file in book(tmp_path, r=text).load("r").files.values()} == {0o755}


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
    ],
)
def test_wrong(tmp_path: Path, content: object, text: str) -> None:
    with pytest.raises((BadRequest, NotFound), match=text) as refused:
        book(tmp_path, r=content).load("r")
    assert "\n" not in str(refused.value)


def test_broken_file_is_named_when_asked_for_and_hides_no_other(tmp_path: Path) -> None:
    recipes = book(tmp_path, good=LEAST, bad={**LEAST, "aliases": ["b/1"], "wrong": 1})
    assert [recipe.name for recipe in recipes.all()] == ["good"]
    assert recipes.find("good").name == "good"
    for name in ("bad", "b/1"):
        with pytest.raises(BadRequest, match="unknown key 'wrong'"):
            recipes.find(name)
