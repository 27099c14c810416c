"""Makes a release: `make release VERSION=X.Y.Z` calls both, with the tests in between.

    python .ci/release.py check X.Y.Z
    python .ci/release.py make X.Y.Z

Uploads and pushes nothing.
"""

import datetime as dt
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PYPROJECT, CHANGELOG = "pyproject.toml", "CHANGELOG.md"
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
UNRELEASED = "## [Unreleased]"


def current_version(pyproject: str) -> str:
    """Return the version in the text of pyproject.toml."""
    [version] = re.findall(r'^version = "(.+)"$', pyproject, re.MULTILINE)
    return version


def unreleased(changelog: str) -> str:
    """Return the entries of the section "Unreleased"."""
    return changelog.partition(f"{UNRELEASED}\n")[2].partition("\n## ")[0].strip()


def dated(changelog: str, version: str, today: dt.date) -> str:
    """Give the entries of "Unreleased" the version and the date."""
    return changelog.replace(UNRELEASED, f"{UNRELEASED}\n\n## [{version}] - {today}", 1)


def with_version(text: str, before: str, version: str) -> str:
    """Replace the package's version, or that of its image, in the text of a file."""
    for place in ('version = "{}"\n', "resize-pipeline:{}", "repository: resize-pipeline, tag: {}"):
        text = text.replace(place.format(before), place.format(version))
    return text


def git(*arguments: str) -> str:
    """Run git in the repository and return its output."""
    return subprocess.run(
        ["git", *arguments], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.strip()


def problem(version: str) -> str | None:
    """Return why this version can't be released now, in one line."""
    before = current_version((REPOSITORY / PYPROJECT).read_text())
    if not VERSION.fullmatch(version):
        return f"VERSION={version} must have the form X.Y.Z, such as 0.2.0"
    if [*map(int, version.split("."))] <= [*map(int, before.split("."))]:
        return f"VERSION={version} must be higher than {before}, the version in {PYPROJECT}"
    if (branch := git("branch", "--show-current")) != "main":
        return f"the branch is {branch or 'none'}: check out main"
    if changed := git("status", "--porcelain"):
        return f"{len(changed.splitlines())} files are not committed: commit or remove them"
    if git("tag", "--list", f"v{version}"):
        return f"the tag v{version} exists: choose another VERSION"
    if not unreleased((REPOSITORY / CHANGELOG).read_text()):
        return f'{CHANGELOG} has no entries below "{UNRELEASED}": write what changed'
    return None


def make(version: str) -> None:
    """Write the version, commit, tag and build; say how to upload."""
    before = current_version((REPOSITORY / PYPROJECT).read_text())
    for name in [PYPROJECT, *git("ls-files", "deploy").splitlines()]:
        path = REPOSITORY / name
        path.write_text(with_version(path.read_text(), before, version))
    changelog = REPOSITORY / CHANGELOG
    today = dt.datetime.now(dt.UTC).date()
    changelog.write_text(dated(changelog.read_text(), version, today))
    git("commit", "--quiet", "--all", "--message", f"Release {version}")
    git("tag", "--annotate", f"v{version}", "--message", f"Release {version}")
    build = [sys.executable, "-m", "hatchling", "build", "--directory", "dist"]
    subprocess.run(build, cwd=REPOSITORY, check=True)
    sys.stdout.write(
        f"\nreleased {version} in this checkout; to publish it:\n"
        f"  git push origin main v{version}\n"
        f"  uv publish dist/resize_pipeline-{version}*\n"
    )


if __name__ == "__main__":
    step, wanted = sys.argv[1:]
    if wrong := problem(wanted):
        sys.exit(f"no release: {wrong}")
    if step == "make":
        make(wanted)
