"""A configuration key as a row of data, and a table of them with its lookups."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pylxc import validate
from pylxc.errors import BadRequest, NotSupported
from pylxc.validate import Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One configuration key, or all keys of one pattern.

    Attributes:
        name: the key; a `*` stands for one or more characters (`user.*`, `volatile.*.hwaddr`).
        type: what the value is, in a word, for the documentation: bool, integer, string, size, ...
        help: one line on what it does.
        default: the value that holds when the key is unset; empty for none.
        unset: what holds when the key is unset, in words, where it is no fixed value.
        check: raises BadRequest for a bad value; an empty value always passes and means unset.
        live: a change acts on a running instance (server, network: at once) instead of at the next start.
        acts: False for a key of the dialect that is stored and given back and does nothing here.
        refused: a key of the dialect that cannot be set here, but to its default.
        condition: when it applies, in words, for the documentation.
        hidden: the value is never shown; it reads back as `true`.
    """

    name: str
    type: str
    help: str
    default: str = ""
    unset: str = ""
    check: Check = validate.anything
    live: bool = False
    acts: bool = True
    refused: bool = False
    condition: str = ""
    hidden: bool = False

    @property
    def is_pattern(self) -> bool:
        """Whether the row stands for more than one key."""
        return "*" in self.name


@dataclass(frozen=True, slots=True)
class Table:
    """The keys of one kind of object.

    Attributes:
        scope: which object, in words: "instance", "network", ...
        title: heading of its documentation.
        keys: the rows, in order of documentation.
        refused: objects of this kind are known to the dialect and refused by this version.
    """

    scope: str
    title: str
    keys: tuple[Key, ...]
    refused: bool = False
    _exact: dict[str, Key] = field(init=False, repr=False, compare=False)
    _patterns: tuple[tuple[re.Pattern[str], Key], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_exact", {key.name: key for key in self.keys if not key.is_pattern})
        object.__setattr__(self, "_patterns", tuple((_compile(key.name), key) for key in self.keys if key.is_pattern))

    def find(self, name: str) -> Key | None:
        """Return the row of a key, None when the dialect does not know it."""
        found = self._exact.get(name)
        if found is None:
            found = next((key for pattern, key in self._patterns if pattern.fullmatch(name)), None)
        return found

    def get(self, name: str) -> Key:
        """Return the row of a key.

        Raises:
            BadRequest: it is not known; the nearest known key is named.
        """
        found = self.find(name)
        if found is None:
            near = difflib.get_close_matches(name, [key.name for key in self.keys], n=1, cutoff=0.6)
            raise BadRequest(
                f"Unknown {self.scope} configuration key: {name}", hint=f"did you mean {near[0]}?" if near else ""
            )
        return found

    def validate(self, config: Mapping[str, str]) -> None:
        """Check every key and value.

        Raises:
            BadRequest: a key is not known or a value is malformed.
            NotSupported: the dialect knows the key, and this server does not do it.
        """
        for name, value in config.items():
            check_value(self.get(name), name, value)

    def default(self, name: str) -> str:
        """Return the value that holds while the key is unset."""
        return self.get(name).default

    def value(self, config: Mapping[str, str], name: str) -> str:
        """Return a key's value in `config`, its default when it is unset or empty."""
        return config.get(name) or self.get(name).default

    def is_true(self, config: Mapping[str, str], name: str) -> bool:
        """Return a boolean key's value in `config`, its default when it is unset or empty."""
        return validate.is_true(self.value(config, name))


def check_value(key: Key, name: str, value: str) -> None:
    """Check the value of the key `name`, whose row is `key`.

    Raises:
        BadRequest: it is malformed; the key is named.
        NotSupported: the key is refused.
    """
    if value == "":
        return
    if key.refused and not _is_default(key, value):
        whose = f"is for {key.condition}, which are" if key.condition else "is"
        raise NotSupported(f"The configuration key {name} {whose} not supported")
    try:
        key.check(value)
    except BadRequest as error:
        raise BadRequest(f"Invalid value for {name}: {error.message}", hint=error.hint) from error


def _is_default(key: Key, value: str) -> bool:
    if key.type == "bool":
        return validate.is_true(value) if validate.is_true(key.default) else validate.is_false(value)
    return value == key.default


def _compile(name: str) -> re.Pattern[str]:
    return re.compile(".+".join(re.escape(part) for part in name.split("*")))
