"""Projects. See: LXD doc rest-api, projects."""

from __future__ import annotations

from typing import TypedDict


class ProjectPut(TypedDict, total=False):
    """Body of PUT and PATCH /1.0/projects/NAME."""

    config: dict[str, str]
    description: str


class ProjectsPost(ProjectPut, total=False):
    """Body of POST /1.0/projects."""

    name: str


class ProjectPost(TypedDict, total=False):
    """Body of POST /1.0/projects/NAME: the new name."""

    name: str


class Project(TypedDict):
    """A project."""

    name: str
    description: str
    config: dict[str, str]
    used_by: list[str]


class ProjectStateResource(TypedDict):
    """A limit (-1: none) and what is used of it; capitalised on the wire."""

    Limit: int
    Usage: int


class ProjectState(TypedDict):
    """Usage by limit key without `limits.`."""

    resources: dict[str, ProjectStateResource]
