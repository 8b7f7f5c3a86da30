"""The profiles that ship with pylxc, YAML in profiles/: LXD's form, with `{pool}` and `{network}` to be filled in."""

from __future__ import annotations

import string
from collections.abc import Mapping

import yaml

from pylxc.resources import resource_dir
from pylxc.wire.server import PreseedProfile


def ready() -> list[PreseedProfile]:
    """Return the built-in profiles that every server can have as they are: all but the default one."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(resource_dir("profiles").glob("*.yaml"))]
    found: list[PreseedProfile] = [yaml.safe_load(text) for text in texts]
    return [profile for profile in found if profile["name"] != "default"]


def devices(name: str, values: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the devices of a built-in profile.

    Args:
        name: of its file, without `.yaml`.
        values: what the places in braces become; a device that needs one that is not there is left out.
    """
    text = (resource_dir("profiles") / f"{name}.yaml").read_text(encoding="utf-8")
    found: dict[str, dict[str, str]] = {}
    for device, keys in yaml.safe_load(text)["devices"].items():
        needed = {field for value in keys.values() for _, field, _, _ in string.Formatter().parse(value) if field}
        if needed <= values.keys():
            found[device] = {key: value.format_map(values) for key, value in keys.items()}
    return found
