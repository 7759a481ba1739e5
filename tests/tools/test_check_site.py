"""tools/check_site.py: the problems that it finds in the built documentation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tools import check_site

if TYPE_CHECKING:
    from pathlib import Path

PAGE = """\
<link rel="icon" href="logo.svg"><img src="logo.svg" alt="logo">
<input name="__palette"><img src="https://badge.example/x.svg">
{links}
"""
LINK = '<a href="{}" class="md-footer__link md-footer__link--{}" aria-label="">'
PAGES = ["one.html", "two.html"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site without a problem."""
    (tmp_path / "logo.svg").write_text("<svg/>")
    (tmp_path / "one.html").write_text(PAGE.format(links=LINK.format("two.html", "next")))
    (tmp_path / "two.html").write_text(PAGE.format(links=LINK.format("one.html", "prev")))
    docs = [
        {"location": "one.html#a", "title": "A Hot Reload", "text": ""},
        {"location": "two.html", "title": "Two", "text": "hot reload"},
    ]
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "search_index.json").write_text(json.dumps({"docs": docs}))
    return tmp_path


def test_a_site_without_a_problem_passes(site: Path) -> None:
    assert list(check_site.check_pages(site, PAGES)) == []
    found = check_site.sections(site)
    assert list(check_site.check_search(found, {"hot reload": "one.html#a"})) == []


def test_a_phrase_must_be_in_the_title_of_its_section(site: Path) -> None:
    [problem] = check_site.check_search(check_site.sections(site), {"hot reload": "two.html"})
    assert problem == "the search for 'hot reload' finds ['one.html#a'], and not two.html"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("--next", "--other", "one.html: its next page is None, and not two.html"),
        ('href="two.html"', 'href="x"', "one.html: its next page is x, and not two.html"),
        ('img src="logo.svg"', 'img src="no.svg"', "one.html: the file no.svg is missing"),
        ("__palette", "", "one.html: no button changes between light and dark colours"),
    ],
)
def test_a_broken_page_is_a_problem(site: Path, old: str, new: str, problem: str) -> None:
    page = site / "one.html"
    page.write_text(page.read_text().replace(old, new))
    assert list(check_site.check_pages(site, PAGES)) == [problem]


def test_the_pages_are_those_of_the_navigation() -> None:
    configuration = "nav:\n  - Start: index.md\n  - What you can rely on: promises.md\n"
    assert check_site.navigation(configuration) == ["index.html", "promises.html"]
