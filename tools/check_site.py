"""Checks the documentation that `make docs` has built: what its search finds, and its links.

    python tools/check_site.py [FOLDER]

Without a folder it checks build/site. It reads the files that a browser would read, and prints each
problem. The exit status is 1 if there is one.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

SITE = Path(__file__).resolve().parents[1] / "build" / "site"

#: Words that readers look for, and the section that must have them in its title: for the search, a
#: title counts for a thousand times as much as the text below it.
SEARCHES = {
    "hot reload": "operation.html#hot-reload",
    "graceful shutdown": "operation.html#graceful-shutdown",
    "trusted proxies": "deployment.html#trusted-proxies",
}

Sections = list[dict[str, str]]


def sections(site: Path) -> Sections:
    """Return the sections in the index of the search, each with its `location` and `title`."""
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    return [{"location": one["location"], "title": one["title"]} for one in index["docs"]]


def check_search(found: Sections, searches: dict[str, str]) -> Iterator[str]:
    """Yield a problem for each phrase that is not the title of its section."""
    for phrase, location in searches.items():
        places = [one["location"] for one in found if phrase in one["title"].lower()]
        if location not in places:
            yield f"the search for {phrase!r} finds {places}, and not {location}"


def check_pages(site: Path, pages: list[str]) -> Iterator[str]:
    """Yield a problem for each page without a logo, or without links to the pages beside it.

    `pages` are the names of the pages, in the order of the navigation.
    """
    for number, name in enumerate(pages):
        text = (site / name).read_text("utf-8")
        for rel, other in (("prev", number - 1), ("next", number + 1)):
            wanted = pages[other] if 0 <= other < len(pages) else None
            link = re.search(rf'<a href="([^"]*)"[^>]*md-footer__link--{rel}', text)
            target = link[1] if link else None
            if target != wanted:
                yield f"{name}: its {rel} page is {target}, and not {wanted}"
        for resource in re.findall(r'<(?:link rel="icon"|img) [^>]*?(?:href|src)="([^":]+)"', text):
            if not (site / resource).is_file():
                yield f"{name}: the file {resource} is missing"
        if 'name="__palette"' not in text:
            yield f"{name}: no button changes between light and dark colours"


def navigation(configuration: str) -> list[str]:
    """Return the names of the built pages, in the order of mkdocs.yml."""
    names = re.findall(r"^  - .*: (\S+)\.md$", configuration, re.MULTILINE)
    return [f"{name}.html" for name in names]


def main() -> int:
    """Check a site, print its problems, and return the exit status."""
    site = Path(sys.argv[1]) if sys.argv[1:] else SITE
    pages = navigation((SITE.parents[1] / "mkdocs.yml").read_text("utf-8"))
    problems = [*check_search(sections(site), SEARCHES), *check_pages(site, pages)]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
