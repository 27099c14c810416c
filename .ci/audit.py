"""Asks for known vulnerabilities of every pinned dependency.

    python .ci/audit.py [UV]

Exits with 1 if a pinned version has one. If no advisories could be read, because there is no
network or the registry serves none, it says so on standard error and exits with 0.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PIP_AUDIT = "pip-audit==2.10.1"
LOCK = Path(__file__).parents[1] / "requirements.lock"
TIMEOUT_S = 300
NAMES_SHOWN = 10


def pinned(lock: str) -> list[str]:
    """Return the pins of a lock file's text, each as NAME==VERSION."""
    return re.findall(r"^([a-z0-9-]+==[^\s;\\]+)", lock, re.MULTILINE)


def one_version_each(pins: list[str]) -> list[list[str]]:
    """Divide pins so that no part has two versions of a package, which pip-audit refuses.

    The lock has several versions of packages that depend on the version of Python.
    """
    parts: list[dict[str, str]] = []
    for pin in pins:
        name = pin.split("==")[0]
        part = next((one for one in parts if name not in one), None)
        if part is None:
            parts.append(part := {})
        part[name] = pin
    return [[*part.values()] for part in parts]


def verdict(answer: str, pins: list[str]) -> tuple[list[str], list[str]]:
    """Read pip-audit's JSON.

    Returns:
        The vulnerabilities, each as a line, and the pins that pip-audit knows nothing about.
    """
    try:
        dependencies = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return [], pins
    known = {
        f"{one['name']}=={one['version']}": one["vulns"] for one in dependencies if "vulns" in one
    }
    holes = [
        f"{pin} has {hole['id']}, fixed in {', '.join(hole['fix_versions']) or 'no version yet'}"
        for pin, found in known.items()
        for hole in found
    ]
    return holes, [pin for pin in pins if pin not in known]


def ask(uv: str, pins: list[str]) -> str:
    """Run pip-audit, which is not a dependency of the project, on these pins."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pins))
        file.flush()
        options = ["--no-deps", "--disable-pip", "--format", "json", "--requirement", file.name]
        try:
            done = subprocess.run(
                [uv, "tool", "run", "--quiet", "--from", PIP_AUDIT, "pip-audit", *options],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            sys.stderr.write(f"{error}\n")
            return ""
    if not done.stdout:
        sys.stderr.write("".join(done.stderr.splitlines(keepends=True)[-1:]))
    return done.stdout


def shown(pins: list[str]) -> str:
    """Write the first pins, and how many more there are."""
    more = f" and {len(pins) - NAMES_SHOWN} more" if len(pins) > NAMES_SHOWN else ""
    return ", ".join(pins[:NAMES_SHOWN]) + more


def main(uv: str = "uv") -> int:
    """Ask, print the result, and return the exit code."""
    pins = pinned(LOCK.read_text())
    holes: list[str] = []
    unknown: list[str] = []
    for part in one_version_each(pins):
        found, unanswered = verdict(ask(uv, part), part)
        holes += found
        unknown += unanswered
    for hole in holes:
        sys.stderr.write(f"KNOWN VULNERABILITY: {hole}; `make lock` pins newer versions\n")
    if unknown:
        sys.stderr.write(
            f"NOT CHECKED: {len(unknown)} of {len(pins)} pinned versions: {shown(unknown)}: no "
            "advisories could be read, run `make audit` where the package index serves them\n"
        )
    elif not holes:
        sys.stdout.write(f"no known vulnerabilities in {len(pins)} pinned versions\n")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
