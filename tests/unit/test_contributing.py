"""CONTRIBUTING.md agrees with `make help` and with the private imports of the package."""

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text()


def test_every_make_command_is_described_once() -> None:
    done = subprocess.run(
        ["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    offered = re.findall(r"^  make (\S+)", done.stdout, re.MULTILINE)
    rows = [line.split("|")[1] for line in CONTRIBUTING.splitlines() if line.startswith("| `make ")]
    described = [name for row in rows for name in re.findall(r"`make ([a-z-]+)`", row)]
    assert sorted(described) == sorted(offered)


def test_the_files_that_it_names_exist() -> None:
    for name in re.findall(
        r"`((?:resize_pipeline|tests|docs|kafka|imaging|instance)/[\w./]+)`", CONTRIBUTING
    ):
        roots = [REPOSITORY, REPOSITORY / "resize_pipeline"]
        assert any((root / name).exists() for root in roots), name


PRIVATE = re.compile(r"dagster\w*\._|kafka\.(net|record|codec)\b")


def private_imports() -> set[tuple[str, str]]:
    """Return the private modules of Dagster and kafka-python that are imported, and by what."""
    package = REPOSITORY / "resize_pipeline"
    return {
        (node.module, file.relative_to(package).as_posix())
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and PRIVATE.match(node.module)
    }


@pytest.mark.parametrize(("module", "file"), sorted(private_imports()))
def test_a_private_import_is_listed_with_its_reason(module: str, file: str) -> None:
    rows = [line.split("|") for line in CONTRIBUTING.splitlines() if line.startswith("| `")]
    listed = {
        name: (why.strip(), users)
        for _, modules, why, users, *_ in (row for row in rows if len(row) == 5)
        for name in re.findall(r"`([\w.]+)`", modules)
    }
    name = module if module.startswith("dagster") else ".".join(module.split(".")[:2])
    assert name in listed
    why, users = listed[name]
    assert why
    if file == "instance/internals.py":
        for user in re.findall(r"`([\w/]+\.py)`", users):
            assert (REPOSITORY / "resize_pipeline" / user).is_file()
    else:
        assert f"`{file}`" in users


def test_test_files_have_names_of_their_own() -> None:
    """Or pytest can't collect two of them in one run."""
    names = Counter(path.name for path in (REPOSITORY / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
