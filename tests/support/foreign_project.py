"""A Dagster project of somebody else, as `create-dagster project` makes it."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

DEFINITIONS = """
from pathlib import Path

import dagster as dg


@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
PYPROJECT = """
[project]
name = "foreign"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "foreign"
"""
INSTANCE = "telemetry: {enabled: false}\n"
TIMEOUT_S = 240.0


@dataclass
class ForeignProject:
    """A folder with a project and an instance. `variables` are those of its `.env`."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, text in {
            "pyproject.toml": PYPROJECT,
            "src/foreign/__init__.py": "",
            "src/foreign/definitions.py": DEFINITIONS,
            "src/foreign/defs/__init__.py": "",
            "home/dagster.yaml": INSTANCE,
            ".env": "".join(f"{name}={value}\n" for name, value in self.variables.items()),
        }.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def defs_yaml(self, name: str) -> Path:
        return self.folder / "src/foreign/defs" / name / "defs.yaml"

    def remove(self, name: str) -> None:
        shutil.rmtree(self.defs_yaml(name).parent)

    def environment(self) -> dict[str, str]:
        paths = [str(self.folder / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
        return os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            "DAGSTER_HOME": str(self.folder / "home"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command of this Python's environment in the folder: dg, dagster."""
        return subprocess.Popen(
            [str(Path(sys.executable).with_name(command[0])), *command[1:]],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str) -> str:
        """Run a command that must succeed, and return what it printed."""
        process = self.start(*command)
        try:
            printed, _ = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
        assert process.returncode == 0, printed
        return printed
