"""The pages of docs/: each that is cited is there, each link leads somewhere, each page is in the site's navigation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
SOURCES = sorted(p for folder in ("eegwatch", "daemon", "tests", "configs") for p in (ROOT / folder).rglob("*.py"))
CITED = re.compile(r"\bdocs/[\w/]+\.md\b|(?<![\w/.{}*])[a-z_]+\.md\b")
OUTPUTS = {"report.md", "log.md", "x.md"}  # files that a command writes, not pages


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_cites_only_pages_that_are_there(path: Path) -> None:
    for name in CITED.findall(path.read_text()):
        if name not in OUTPUTS:
            assert (ROOT / name).exists() or (ROOT / "docs" / name).exists(), f"{path.relative_to(ROOT)} cites {name}"


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *PAGES], ids=str)
def test_each_link_of_a_page_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_the_navigation() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = set(re.findall(r"[\w/-]+\.md", yaml.safe_dump(site["nav"])))
    assert listed == {str(p.relative_to(ROOT / "docs")) for p in PAGES}


def test_the_files_that_the_architecture_page_names_are_there() -> None:
    named = re.findall(r"`((?:eegwatch|daemon)/[\w/]+(?:\.py|/))`", (ROOT / "docs" / "architecture.md").read_text())
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []
