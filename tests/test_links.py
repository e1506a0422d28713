"""The links of the README and of docs/ lead to files that exist, and to headings that they have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINKS = [
    (page.relative_to(ROOT).as_posix(), link)
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    if not re.match(r"[a-z]+:", link)
]


def anchor(heading: str) -> str:
    """As GitHub names it: lower case, words joined by hyphens, without other marks."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_there_are_links() -> None:
    assert len(LINKS) > 100


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_links_lead_somewhere(page: str, link: str) -> None:
    path, _, name = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists()
    if name:
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert name in map(anchor, headings)
