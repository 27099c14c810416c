"""The site has every page, its links lead somewhere, and it loads nothing from elsewhere."""

import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from tests.support.scripts import REPOSITORY, ci_script

SCRIPT = ci_script("docs_site")
NAV = tomllib.loads((REPOSITORY / "docs" / "zensical.toml").read_text())["project"]["nav"]
FOREIGN = re.compile(r"(?:[a-z]+:)?//|mailto:")


class Page(HTMLParser):
    """The anchors, links and loaded files of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        if "id" in values:
            self.anchors.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        elif link := values.get("src") or values.get("href"):
            self.loaded.add(link)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    folder = tmp_path_factory.mktemp("site") / "built"
    assert SCRIPT.stage(REPOSITORY, folder) == []
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    subprocess.run(build, cwd=folder, check=True)
    return {file: Page(file) for file in sorted((folder / "html").rglob("*.html"))}


def test_every_page_is_on_it(site: dict[Path, Page]) -> None:
    assert len(site) == len(SCRIPT.pages(REPOSITORY)) + 1, "one more for what is not found"


def test_its_links_lead_somewhere(site: dict[Path, Page]) -> None:
    wrong = []
    for file, page in site.items():
        for link in page.links | page.loaded:
            if FOREIGN.match(link) or file.name == "404.html":
                continue
            place, anchor = map(unquote, urldefrag(link))
            target = (file.parent / place).resolve() if place else file
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (anchor and anchor not in site[target].anchors):
                wrong.append((file.parent.name, link))
    assert not wrong


def test_it_loads_nothing_from_elsewhere(site: dict[Path, Page]) -> None:
    assert not {link for page in site.values() for link in page.loaded if FOREIGN.match(link)}


def test_a_page_that_is_missing_from_the_navigation_is_found(tmp_path: Path) -> None:
    for name in SCRIPT.pages(REPOSITORY) | {"docs/zensical.toml"}:
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, tmp_path / "copy" / name)
    (tmp_path / "copy" / "docs" / "new.md").write_text("# New\n")
    (tmp_path / "copy" / "SECURITY.md").unlink()
    assert SCRIPT.stage(tmp_path / "copy", tmp_path / "site") == [
        "docs/new.md is not in the nav of docs/zensical.toml: add it",
        "SECURITY.md is in the nav of docs/zensical.toml, and missing",
    ]
    assert not (tmp_path / "site").exists()


def test_a_page_that_is_listed_twice_is_found() -> None:
    assert SCRIPT.problems(REPOSITORY, [*NAV, {"Again": "SECURITY.md"}]) == [
        "SECURITY.md is in the nav of docs/zensical.toml more than once"
    ]
