"""Profiles. See: LXD doc rest-api, profiles."""

from __future__ import annotations

from typing import TypedDict


class ProfilePut(TypedDict, total=False):
    """Body of PUT and PATCH /1.0/profiles/NAME."""

    config: dict[str, str]
    description: str
    devices: dict[str, dict[str, str]]


class ProfilesPost(ProfilePut, total=False):
    """Body of POST /1.0/profiles."""

    name: str


class ProfilePost(TypedDict, total=False):
    """Body of POST /1.0/profiles/NAME: the new name."""

    name: str


class Profile(TypedDict):
    """A profile; `used_by` holds URLs of instances."""

    name: str
    description: str
    config: dict[str, str]
    devices: dict[str, dict[str, str]]
    used_by: list[str]
