"""`make release` changes the version everywhere, dates the changelog, tags and builds."""

import datetime as dt
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.scripts import REPOSITORY, ci_script

SCRIPT = ci_script("release")
AUTHOR = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "A"), ("EMAIL", "a@example.com"))
}
NEXT = "77.8.9"


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=os.environ | AUTHOR,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy what a release is made of into a repository of its own, on main."""
    folder = tmp_path / "checkout"
    for name in ("resize_pipeline", "deploy", ".ci"):
        ignored = shutil.ignore_patterns("__pycache__", "logs", ".*", "secrets")
        shutil.copytree(REPOSITORY / name, folder / name, symlinks=True, ignore=ignored)
    files = [one for one in REPOSITORY.iterdir() if one.is_file() and one.name != ".env"]
    for file in files:
        if file.name != ".git":
            shutil.copyfile(file, folder / file.name)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Before")
    return folder


def release(checkout: Path, step: str, version: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, checkout / ".ci" / "release.py", step, version],
        env=os.environ | AUTHOR,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_release_is_one_commit_with_a_tag_and_two_files(checkout: Path) -> None:
    before = SCRIPT.current_version((checkout / "pyproject.toml").read_text())
    changelog = (checkout / "CHANGELOG.md").read_text()
    (checkout / "CHANGELOG.md").write_text(
        changelog.replace("\n\n### ", "\n\n### Added\n\n- This.\n\n### ", 1)
    )
    git(checkout, "commit", "--quiet", "--all", "--message", "An entry")
    assert release(checkout, "check", NEXT).returncode == 0
    assert git(checkout, "describe", "--always", "--dirty")[-5:] != "dirty"

    done = release(checkout, "make", NEXT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"  uv publish dist/resize_pipeline-{NEXT}*\n")
    assert git(checkout, "log", "--format=%s", "-1") == f"Release {NEXT}"
    assert git(checkout, "describe", "--exact-match") == f"v{NEXT}"
    assert not git(checkout, "status", "--porcelain")
    for command in (("grep", "-l", f"resize-pipeline:{before}"), ("grep", "-l", f"tag: {before}")):
        found = subprocess.run(["git", *command, "--", "deploy"], cwd=checkout, check=False)
        assert found.returncode == 1
    assert f"resize-pipeline:{NEXT}" in (checkout / "deploy/compose/compose.yaml").read_text()

    today = dt.datetime.now(dt.UTC).date()
    after = (checkout / "CHANGELOG.md").read_text()
    assert f"\n## [Unreleased]\n\n## [{NEXT}] - {today}\n\n### Added\n\n- This.\n" in after
    assert SCRIPT.unreleased(after) == ""
    wheel = checkout / "dist" / f"resize_pipeline-{NEXT}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as file:
        metadata = file.read(f"resize_pipeline-{NEXT}.dist-info/METADATA").decode()
    assert f"\nVersion: {NEXT}\n" in metadata
    with tarfile.open(checkout / "dist" / f"resize_pipeline-{NEXT}.tar.gz") as archive:
        assert f"resize_pipeline-{NEXT}/CHANGELOG.md" in archive.getnames()

    again = release(checkout, "make", "77.8.10")
    assert again.stderr == (
        'no release: CHANGELOG.md has no entries below "## [Unreleased]": write what changed\n'
    )


@pytest.mark.parametrize(
    ("version", "change", "said"),
    [
        ("1.2", None, "VERSION=1.2 must have the form X.Y.Z, such as 0.2.0"),
        ("01.2.3", None, "VERSION=01.2.3 must have the form X.Y.Z, such as 0.2.0"),
        ("0.0.9", None, "VERSION=0.0.9 must be higher than"),
        (NEXT, ("checkout", "--quiet", "-b", "other"), "the branch is other: check out main"),
        (NEXT, ("tag", f"v{NEXT}"), f"the tag v{NEXT} exists: choose another VERSION"),
        (
            NEXT,
            ("rm", "--quiet", "--cached", "LICENSE"),
            "files are not committed: commit or remove",
        ),
    ],
)
def test_a_release_is_refused(
    checkout: Path, version: str, change: tuple[str, ...] | None, said: str
) -> None:
    if change:
        git(checkout, *change)
    done = release(checkout, "check", version)
    assert done.returncode == 1
    assert done.stderr.startswith("no release: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_changelog_is_kept_in_its_form() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[0] == SCRIPT.UNRELEASED
    kinds = {line for line in text.splitlines() if line.startswith("### ")}
    allowed = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
    assert kinds <= {f"### {kind}" for kind in allowed}
