"""Recipe files: YAML that says what an image is made of. The format is told in docs/recipes.md."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from pylxc.errors import BadRequest, NotFound, PylxcError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MAX_DEPTH = 5
BASES = ("apt", "essential", "extract", "minbase", "required", "standard")


@dataclass(frozen=True, slots=True)
class File:
    """A file that the recipe writes into the image."""

    content: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Template:
    """A file that is rendered in the instance. `when` has create, copy, rename, start; it sees `properties`."""

    content: str
    when: tuple[str, ...] = ("create", "copy")
    create_only: bool = False
    properties: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A checked recipe. Its fields are the keys of the file; `name` is the file's without .yaml, perhaps "/VARIANT"."""

    name: str
    description: str
    aliases: tuple[str, ...]
    os: str
    release: str
    variant: str = "default"
    architectures: tuple[str, ...] = ()
    archive: str
    mirror: str = "host"
    suites: tuple[str, ...]
    security: str = ""
    components: tuple[str, ...] = ("main",)
    keyring: str = ""
    base: str = "apt"
    packages: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    files: dict[str, File] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)
    templates: dict[str, Template] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Changes with everything that the recipe says."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class RecipeBook:
    """The recipes of some directories; a file in an earlier one hides its namesakes in later ones.

    Files are read anew each time: who edits one sees the change at once.
    """

    def __init__(self, *directories: str) -> None:
        self._directories = directories

    def find(self, alias: str) -> Recipe:
        """Return the recipe that has `alias`, or whose file is called that.

        Raises:
            NotFound: there is none.
            BadRequest: its file is wrong.
        """
        broken: PylxcError | None = None
        for name, path in self._paths().items():
            try:
                recipes = self.load(name)
            except PylxcError as error:
                if name == alias.partition("/")[0] or _gives_alias(path, alias):
                    broken = broken or error
                continue
            for recipe in recipes:
                if alias == recipe.name or alias in recipe.aliases:
                    return recipe
        raise broken or NotFound(f"No recipe is called {alias[:100]!r}", hint="pylxc image list recipe:")

    def all(self) -> list[Recipe]:
        """Return the recipes that can be read, by name."""
        found: list[Recipe] = []
        for name in sorted(self._paths()):
            try:
                found += self.load(name)
            except PylxcError:
                continue
        return found

    def load(self, name: str) -> list[Recipe]:
        """Return the recipe in the file `name`.yaml, and its variants after it.

        Raises:
            NotFound: there is no such file.
            BadRequest: it is no recipe; the message names file and key.
        """
        data = self._merged(name, self._named(name))
        variants = _map(name, data, "variants")
        data.pop("variants", None)
        recipe = _check(name, data)
        return [recipe, *(_variant(recipe, data, word, changes) for word, changes in variants)]

    def read(self, name: str, text: str) -> Recipe:
        """Return the recipe that `text` is, called `name`; it may extend those of the book. Its variants do not count.

        Raises:
            BadRequest: it is no recipe.
        """
        if not _NAME.fullmatch(name):
            raise BadRequest(f"Invalid name of a recipe {name[:60]!r}")
        data = self._merged(name, _parse(name, text))
        data.pop("variants", None)
        return _check(name, data)

    def _paths(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for directory in self._directories:
            try:
                entries = sorted(os.listdir(directory))
            except OSError:
                continue
            for entry in entries:
                name = entry.removesuffix(".yaml")
                if entry.endswith(".yaml") and name != "remotes" and _NAME.fullmatch(name):
                    found.setdefault(name, f"{directory}/{entry}")
        return found

    def _named(self, name: str) -> dict[str, Any]:
        path = self._paths().get(name)
        if path is None:
            raise NotFound(f"There is no recipe {name!r}")
        return _read(path)

    def _merged(self, name: str, data: dict[str, Any], depth: int = 0) -> dict[str, Any]:
        parent = data.pop("extends", None)
        if parent is None:
            return data
        if depth >= _MAX_DEPTH or not isinstance(parent, str):
            raise BadRequest(f"Recipe {name!r}: 'extends' must name another recipe, and end somewhere")
        return _over(name, self._merged(parent, self._named(parent), depth + 1), data)


def _over(name: str, base: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with what `data` says instead: maps are merged, and a list whose key ends in "+" is appended."""
    merged = dict(base)
    for key in sorted(data, key=lambda key: str(key).endswith("+")):
        value, plain = data[key], str(key).removesuffix("+")
        if key != plain:
            if plain not in _LISTS or not isinstance(value, list):
                raise BadRequest(f"Recipe {name!r}: {key!r} must be a list, and add to one")
            target = plain if isinstance(merged.get(plain), list) else key
            merged[target] = [*merged.get(target, []), *value]
        elif key == "variants":
            older = dict(_map(name, merged, key))
            news = {
                word: _over(name, older.get(word, {}), _changes(name, word, new)) for word, new in _map(name, data, key)
            }
            merged[key] = older | news
        elif key in _MAPS and isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merged[key] | value
        else:
            merged[key] = value
    return merged


def _variant(recipe: Recipe, data: Mapping[str, Any], word: str, changes: object) -> Recipe:
    """Return a recipe's variant: its names are the recipe's with /VARIANT after them."""
    name = f"{recipe.name}/{word}"
    checked = _changes(recipe.name, word, changes)
    aliases = {"aliases": [f"{alias}/{word}" for alias in recipe.aliases], "variant": word}
    return _check(name, _over(name, data, {**aliases, **checked}))


def _changes(name: str, word: str, changes: object) -> dict[str, Any]:
    if not _NAME.fullmatch(word) or not isinstance(changes, dict) or {"variants", "extends"} & changes.keys():
        raise BadRequest(f"Recipe {name!r}: the variant {word!r} must be a map of what is different in it")
    return changes


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return _parse(path, file.read())
    except OSError as error:
        raise BadRequest(f"Recipe {path!r} cannot be read: {error.strerror}") from error


def _parse(name: str, text: str | bytes) -> dict[str, Any]:
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise BadRequest(f"Recipe {name!r} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(data, dict):
        raise BadRequest(f"Recipe {name!r} is no map")
    return data


def _gives_alias(path: str, alias: str) -> bool:
    try:
        aliases = _read(path).get("aliases")
    except PylxcError:
        return False
    return isinstance(aliases, list) and any(f"{alias}/".startswith(f"{given}/") for given in aliases)


_TEXTS = ("description", "os", "release", "variant", "archive", "mirror", "security", "keyring", "base")
_LISTS = ("aliases", "architectures", "suites", "components", "packages", "exclude", "include", "commands")
_MAPS = ("files", "templates", "properties")


def _check(name: str, data: Mapping[str, Any]) -> Recipe:
    known = {*_TEXTS, *_LISTS, *_MAPS}
    data = {str(key).removesuffix("+"): value for key, value in data.items()}  # there was nothing to add to
    for key in data:
        if key not in known:
            raise BadRequest(f"Recipe {name!r}: unknown key {key!r}")
    for key in ("description", "os", "release", "archive", "suites"):
        if not data.get(key):
            raise BadRequest(f"Recipe {name!r}: {key!r} is missing")
    values: dict[str, Any] = {key: _text(name, key, data[key]) for key in _TEXTS if key in data}
    values |= {key: _list(name, key, data[key]) for key in _LISTS if key in data}
    values["aliases"] = values.get("aliases") or (name,)
    values["files"] = {_path(name, path): _file(name, path, entry) for path, entry in _map(name, data, "files")}
    values["templates"] = {
        _path(name, path): _template(name, path, entry) for path, entry in _map(name, data, "templates")
    }
    values["properties"] = {str(key): _text(name, str(key), value) for key, value in _map(name, data, "properties")}
    if values.get("base", "apt") not in BASES:
        raise BadRequest(f"Recipe {name!r}: 'base' must be one of {', '.join(BASES)}")
    return Recipe(name=name, **values)


def _text(name: str, key: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadRequest(f"Recipe {name!r}: {key!r} must be a text")
    return str(value)


def _list(name: str, key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise BadRequest(f"Recipe {name!r}: {key!r} must be a list of texts")
    return tuple(_text(name, key, item) for item in value)


def _map(name: str, data: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    value = data.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value):
        raise BadRequest(f"Recipe {name!r}: {key!r} must be a map")
    return list(value.items())


def _path(name: str, path: str) -> str:
    if not path.startswith("/") or ".." in path.split("/") or path.endswith("/") or "\0" in path:
        raise BadRequest(f"Recipe {name!r}: {path!r} is no absolute path of a file")
    return path


def _file(name: str, path: str, entry: object) -> File:
    if isinstance(entry, dict) and not set(entry) - {"content", "mode"}:
        return File(_text(name, path, entry.get("content", "")), _mode(name, path, entry.get("mode", 0o644)))
    return File(_text(name, path, entry))


def _mode(name: str, path: str, value: object) -> int:
    # YAML 1.1 reads 0755 as octal; 0o755, YAML 1.2's form, arrives as a text.
    try:
        mode = int(value, 8) if isinstance(value, str) else value
    except ValueError:
        mode = None
    if not isinstance(mode, int) or isinstance(mode, bool) or not 0 <= mode <= 0o7777:
        raise BadRequest(f"Recipe {name!r}: the mode of {path!r} must be like 0755")
    return mode


def _template(name: str, path: str, entry: object) -> Template:
    if not isinstance(entry, dict) or set(entry) - {"content", "when", "create_only", "properties"}:
        raise BadRequest(f"Recipe {name!r}: the template {path!r} must have content, when, create_only or properties")
    return Template(
        content=_text(name, path, entry.get("content", "")),
        when=_list(name, path, entry.get("when", ["create", "copy"])),
        create_only=bool(entry.get("create_only", False)),
        properties={key: _text(name, key, value) for key, value in _map(name, entry, "properties")},
    )
