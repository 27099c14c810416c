"""Asks whether the pinned versions of what decodes strangers' pictures have known holes.

    python .ci/audit.py [UV]

Exit code 1 if one has. If nobody could be asked, for lack of a network or because an index in
between does not know, it says so on standard error and ends well.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

DECODERS = ("pillow", "pillow-heif")
PIP_AUDIT = "pip-audit==2.10.1"
LOCK = Path(__file__).parents[1] / "requirements.lock"
TIMEOUT_S = 180


def pinned(lock: str) -> list[str]:
    """Give the decoders in the text of a lock file, each as NAME==VERSION."""
    pins = re.findall(r"^([a-z0-9-]+==[^\s;\\]+)", lock, re.MULTILINE)
    return [pin for pin in pins if pin.split("==")[0] in DECODERS]


def verdict(answer: str, pins: list[str]) -> tuple[list[str], list[str]]:
    """Read pip-audit's JSON.

    Returns:
        The holes, each as a line, and the pins of which nothing is known.
    """
    try:
        dependencies = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return [], pins
    known = {
        f"{one['name']}=={one['version']}": one["vulns"] for one in dependencies if "vulns" in one
    }
    holes = [
        f"{pin} has {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no version yet'}"
        for pin, found in known.items()
        for hole in found
    ]
    return holes, [pin for pin in pins if pin not in known]


def ask(uv: str, pins: list[str]) -> str:
    """Run pip-audit, which is no dependency of the project, on these pins."""
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


def main(uv: str = "uv") -> int:
    """Ask, say, and give the exit code."""
    pins = pinned(LOCK.read_text())
    holes, unknown = verdict(ask(uv, pins), pins)
    for hole in holes:
        sys.stderr.write(f"KNOWN HOLE: {hole}; `make lock` takes newer versions\n")
    if unknown:
        sys.stderr.write(
            f"NOT CHECKED FOR KNOWN HOLES: {', '.join(unknown)}: nobody could be asked, "
            "run `make audit` where there is a network\n"
        )
    elif not holes:
        sys.stdout.write(f"no known holes: {', '.join(pins)}\n")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
