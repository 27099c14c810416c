"""Every link between the pages leads somewhere, and every file that a page names exists."""

import re
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(
    page
    for place in (".", "docs", "deploy", "benchmarks")
    for page in (REPOSITORY / place).glob("*.md" if place == "." else "**/*.md")
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# A Python file as a page names it, below the repository, the package, or the page's own folder.
NAMED = re.compile(r"`([\w./-]+\.py)`")
# Files that the reader of a page writes.
WRITTEN_BY_THE_READER = {"my_models.py", "look.py", "signing.py", "upload.py"}


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, made as GitHub makes them."""
    text = FENCE.sub("", page.read_text())
    seen: Counter[str] = Counter()
    found: set[str] = set()
    for heading in HEADING.findall(text):
        words = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere."""
    wrong: list[str] = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


def test_the_pages_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "architecture.md"} <= {page.name for page in PAGES}
    assert sum(len(LINK.findall(page.read_text())) for page in PAGES) > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_its_links_lead_somewhere(page: Path) -> None:
    assert not broken(page)


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One\n\n## Two `words`, and #3\n\n# One\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[a](#here) [b](other.md) [c](other.md#two-words-and-3) [d](other.md#one-1)\n"
        "[e](#there) [f](missing.md) [g](other.md#three) [h](https://example.com/#x)\n"
    )
    assert broken(page) == ["#there", "missing.md", "other.md#three"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_python_files_that_it_names_exist(page: Path) -> None:
    places = (REPOSITORY, REPOSITORY / "resize_pipeline", page.parent)
    missing = [
        name
        for name in NAMED.findall(page.read_text())
        if name not in WRITTEN_BY_THE_READER
        and not name.startswith("dagster")
        and not any((place / name).is_file() for place in places)
    ]
    assert not missing
