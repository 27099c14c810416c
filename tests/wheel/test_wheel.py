"""The wheel is enough: built from this tree, installed in an empty environment, and used."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from resize_pipeline.local.processes.ports import free_port
from tests.conftest import MINIO_BIN
from tests.support.pictures import detailed, encoded
from tests.support.scripts import ci_script

REPOSITORY = Path(__file__).parents[2]
UV = shutil.which("uv") or Path(sys.executable).with_name("uv")
PAGE = (REPOSITORY / "docs" / "install.md").read_text()
BLOCKS = re.findall(
    r"^    pip install ('?resize-pipeline\S*)\n    (resize-pipeline .*)", PAGE, re.MULTILINE
)
"""What docs/install.md says to install, each with the command to run then."""
COPIES = {
    "dagster.yaml": "dagster.yaml",
    "workspace.yaml": "workspace.yaml",
    "renditions.yaml": "renditions.yaml",
    "deploy/celery/dagster.yaml": "deploy/celery/dagster.yaml",
    "deploy/celery/dagster_celery_config.py": "deploy/celery/dagster_celery_config.py",
}
"""What the wheel has below `resize_pipeline/defaults`, and the files of the repository."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel in it, and a folder to use it in."""

    programs: Path
    folder: Path

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        foreign = {"PYTHONPATH", "VIRTUAL_ENV"}
        kept = {name: value for name, value in os.environ.items() if name not in foreign}
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(  # noqa: S602 - a shell, as the page's reader has it.
            command,
            shell=True,
            cwd=self.folder,
            env=kept | {"COLUMNS": "200", "PATH": path} | variables,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from what it contains."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder), "--target"]
    subprocess.run([*build, "sdist"], cwd=REPOSITORY, check=True, capture_output=True)
    [archive] = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    source = folder / archive.name.removesuffix(".tar.gz")
    subprocess.run([*build, "wheel"], cwd=source, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Callable[[str], Environment]:
    """Install what the page says, from the wheel, in an environment of its own."""

    def install(requirement: str) -> Environment:
        venv = tmp_path / "venv"
        subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, venv], check=True)
        extras = requirement.strip("'").removeprefix("resize-pipeline")
        subprocess.run(
            [
                *(UV, "pip", "install", "--quiet", "--python", venv / "bin" / "python"),
                *("--constraint", REPOSITORY / "requirements.lock", f"{wheel}{extras}"),
            ],
            check=True,
        )
        folder = tmp_path / "empty"
        folder.mkdir()
        return Environment(venv / "bin", folder)

    return install


def test_the_wheel_has_types_and_the_files_of_a_folder(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        assert "resize_pipeline/py.typed" in names
        for inside, outside in COPIES.items():
            assert file.read(f"resize_pipeline/defaults/{inside}") == (
                (REPOSITORY / outside).read_bytes()
            )
    assert all(name.startswith(("resize_pipeline/", "resize_pipeline-")) for name in names)


def test_without_extras_it_renders_a_folder_and_names_the_extra_of_the_rest(
    installed: Callable[[str], Environment], tmp_path: Path
) -> None:
    requirement, command = BLOCKS[0]
    environment = installed(requirement)
    shown = environment.run("python -c 'import resize_pipeline as r; print(r.__version__)'")
    version = shown.stdout.strip()
    assert environment.run("resize-pipeline --version").stdout == f"resize-pipeline {version}\n"
    assert "resize" in environment.run("resize-pipeline --help").stdout

    pictures = tmp_path / "Pictures" / "deeper"
    pictures.mkdir(parents=True)
    (pictures / "rose.jpg").write_bytes(encoded(detailed(1600, 1200), "JPEG"))
    done = environment.run(command, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    for bucket in ("processed", "processed-medium", "processed-thumbnail"):
        assert (environment.folder / "renditions" / bucket / "deeper" / "rose.jpg").is_file()
    defaults = environment.programs.parent.glob("lib/*/site-packages/resize_pipeline/defaults")
    [specs] = [folder / "renditions.yaml" for folder in defaults]
    assert f"no renditions.yaml in this folder: using {specs}; --spec names" in done.stderr

    done = environment.run("resize-pipeline demo", MINIO_BIN="/bin/true", **ports())
    assert done.returncode == 1
    [*_, line] = done.stderr.splitlines()
    assert "pip install 'resize-pipeline[stack]'" in line
    assert "Traceback" not in done.stderr


@pytest.mark.wheel
def test_the_demonstration_runs_in_an_empty_folder(
    installed: Callable[[str], Environment],
) -> None:
    requirement, command = BLOCKS[1]
    environment = installed(requirement)
    variables = ports() | ({"MINIO_BIN": MINIO_BIN} if MINIO_BIN else {})
    done = environment.run(command, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "objects ended as expected" in done.stdout
    created = "created dagster.yaml, renditions.yaml, workspace.yaml in"
    assert done.stderr.startswith(f"{created} {environment.folder}\n")
    [export] = re.findall(r"^    (export DAGSTER_HOME.*)", PAGE, re.MULTILINE)
    listed = environment.run(f"{export}; dagster asset list -m resize_pipeline.definitions")
    assert "thumbnail" in listed.stdout, listed.stderr
    status = environment.run("resize-pipeline stack status", **variables)
    assert status.returncode == 1, "what the demonstration started has ended"


@pytest.mark.wheel
def test_the_types_of_the_public_api_are_known(
    installed: Callable[[str], Environment], tmp_path: Path
) -> None:
    programs = installed("resize-pipeline[celery]").programs
    # pyright takes its environment from both.
    (tmp_path / "pyrightconfig.json").write_text('{"venvPath": ".", "venv": "venv"}')
    own = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": programs.parent}
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    pyright = Path(sys.executable).with_name("pyright")
    done = subprocess.run(
        [pyright, "--verifytypes", "resize_pipeline", "--ignoreexternal", "--outputjson"],
        cwd=tmp_path,
        env=kept | own,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    symbols = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    known = {symbol["name"]: symbol["isTypeKnown"] for symbol in symbols}
    public = [path for _, objects in ci_script("api_doc").PUBLIC.values() for path in objects]
    assert [path for path in public if not known.get(path)] == []


def ports() -> dict[str, str]:
    """Give servers of this test ports of their own."""
    return {
        "MINIO_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
        "UI_PORT": str(free_port()),
    }
