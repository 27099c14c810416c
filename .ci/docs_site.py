"""Builds the documentation as a site, or serves it.

    python .ci/docs_site.py build|serve

The pages link to each other, and to files, as the repository has them. So the site has its layout:
every page that the navigation in docs/zensical.toml lists, and every file that a page links to.
"""

import os
import re
import shutil
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)#\s]+)")
FOREIGN = re.compile(r"[a-z]+:")


def listed(nav: Iterable[object]) -> Iterator[str]:
    """Yield the pages of a navigation, in order."""
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, dict):
            for value in entry.values():
                yield from listed(value if isinstance(value, list) else [value])


def pages(repository: Path) -> set[str]:
    """Return the pages that have to be on the site."""
    found = [*repository.glob("*.md"), *repository.glob("docs/**/*.md")]
    found += repository.glob("deploy/**/*.md")
    return {page.relative_to(repository).as_posix() for page in found}


def problems(repository: Path, nav: Iterable[object]) -> list[str]:
    """Return what the navigation lacks, lists twice, or lists without need."""
    names = [*listed(nav)]
    wanted = pages(repository)
    twice = sorted({name for name in names if names.count(name) > 1})
    return [
        *(
            f"{name} is not in the nav of docs/zensical.toml: add it"
            for name in sorted(wanted - {*names})
        ),
        *(
            f"{name} is in the nav of docs/zensical.toml, and missing"
            for name in sorted({*names} - wanted)
        ),
        *(f"{name} is in the nav of docs/zensical.toml more than once" for name in twice),
    ]


def linked(repository: Path, names: Iterable[str]) -> set[str]:
    """Return the files, other than pages, that the pages link to."""
    found: set[str] = set()
    for name in names:
        page = repository / name
        for link in LINK.findall(page.read_text()):
            target = (page.parent / link).resolve()
            if not FOREIGN.match(link) and target.is_file() and target.suffix != ".md":
                found.add(target.relative_to(repository.resolve()).as_posix())
    return found


def stage(repository: Path, folder: Path) -> list[str]:
    """Copy what the site is made of.

    Args:
        repository: the folder of README.md.
        folder: receives the pages in `pages`, and the configuration, which puts the site in `html`.

    Returns:
        What is wrong with the navigation; nothing is copied then.
    """
    config = repository / "docs" / "zensical.toml"
    project = tomllib.loads(config.read_text())["project"]
    if wrong := problems(repository, project["nav"]):
        return wrong
    shutil.rmtree(folder, ignore_errors=True)
    names = pages(repository)
    for name in names | linked(repository, names) | {*project["extra_css"]}:
        (folder / "pages" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(repository / name, folder / "pages" / name)
    shutil.copyfile(config, folder / config.name)
    return []


if __name__ == "__main__":
    site = REPOSITORY / ".local" / "site"
    if found := stage(REPOSITORY, site):
        sys.exit("\n".join(found))
    os.chdir(site)
    options = {"build": ["build", "--strict"], "serve": ["serve"]}[sys.argv[1]]
    # In place of this process, so that Ctrl-C reaches nothing else.
    os.execv(sys.executable, [sys.executable, "-m", "zensical", *options])  # noqa: S606
