"""Generated pages say what the code says; pages name what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pylxc.config.docs import render
from pylxc.services.extensions import PYLXC

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_options_page_is_what_the_registry_says() -> None:
    assert (ROOT / "docs/options.md").read_text() == render(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [t for t in targets if not (page.parent / t).exists()] == []


def test_extensions_of_our_own_are_documented() -> None:
    page = (ROOT / "docs/api-extensions.md").read_text()
    assert [name for name in PYLXC if f"## {name}\n" not in page] == []
