"""The profiles that ship with pylxc, YAML in profiles/: LXD's form, with `{pool}` and `{network}` to be filled in."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping

import yaml

from pylxc.db import profiles, projects
from pylxc.db.engine import Database
from pylxc.db.models import Profile
from pylxc.resources import resource_dir
from pylxc.services import etag
from pylxc.wire.server import PreseedProfile


def ready() -> list[PreseedProfile]:
    """Return the built-in profiles that every server can have as they are: all but the default one."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(resource_dir("profiles").glob("*.yaml"))]
    found: list[PreseedProfile] = [yaml.safe_load(text) for text in texts]
    return [profile for profile in found if profile["name"] != "default"]


def seed(db: Database, shipped: Iterable[PreseedProfile]) -> None:
    """Give the default project built-in profiles, at each start: a new version may have more of them, or other ones.

    One that it was given before and that is gone stays away; one that was changed, or that instances have, stays as it
    is.
    """
    with db.transaction() as session:
        given = profiles.seeded(session)
        for each in shipped:
            name, tag = each["name"], etag.etag(*_content(each))
            row = profiles.find(session, "default", name)
            if row is None and name not in given:
                row = Profile(project=projects.get(session, "default"), name=name)
                session.add(row)
            elif row is None or not _is_ours(row, given.get(name, tag)) or profiles.users(session, [row.id]):
                continue
            row.description, row.config, row.devices = _content(each)
            profiles.record_seed(session, name, tag)


def _is_ours(row: Profile, tag: str) -> bool:
    """Tell whether a profile is as the tag says: nobody has changed it."""
    return etag.etag(row.description, row.config, row.devices) == tag


def _content(profile: PreseedProfile) -> tuple[str, dict[str, str], dict[str, dict[str, str]]]:
    return profile.get("description", ""), profile.get("config", {}), profile.get("devices", {})


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
