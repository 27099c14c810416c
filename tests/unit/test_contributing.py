"""CONTRIBUTING.md and `make help` agree."""

import re
import subprocess
from pathlib import Path

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
