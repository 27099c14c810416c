"""The command line reports a user's mistake in one line, before it starts anything."""

import os
from pathlib import Path

import pytest

from resize_pipeline.local.processes.state import StackState, current_process
from tests.support.project import Project

# No server is needed, but each is a program that takes seconds to start.
pytestmark = pytest.mark.integration


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def refused(project: Project, *command: str) -> str:
    """Run a command that must end with exit code 1 and one line; return the line."""
    done = project.run("resize-pipeline", *command)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    # Nothing was built, downloaded or started.
    assert not (project.folder / ".local" / "minio").exists()
    return lines[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("storage: [", "expected the node content"),
        ("nonsense: 1\n", 'Received unexpected config entry "nonsense"'),
        ("storage: {sqlite: {base_dir: /dev/null/x}}\n", "/dev/null/x"),
    ],
)
def test_a_dagster_yaml_that_is_wrong(project: Project, text: str, problem: str) -> None:
    (project.folder / "dagster.yaml").write_text(text)
    for command in ("up", "status"):
        line = refused(project, command)
        assert problem in line
        assert f"{project.folder}/dagster.yaml" in line


@pytest.mark.parametrize(
    "command",
    [
        "provision",
        "status",
        "dead-letters list",
        "reprocess a",
        "removed-renditions list",
    ],
)
def test_a_wrong_folder(project: Project, command: str) -> None:
    for file in project.folder.iterdir():
        file.unlink()
    # As if not set.
    project.settings |= {"DAGSTER_HOME": "", "KAFKA_BOOTSTRAP_SERVERS": ""}
    line = refused(project, *command.split())
    assert str(project.folder) in line
    assert "run this in the project's folder" in line
    assert not [*project.folder.iterdir()]


def test_down_says_of_which_folder_nothing_runs(project: Project) -> None:
    done = project.run("resize-pipeline", "down")
    assert done.returncode == 0
    assert done.stderr == f"nothing was running in {project.folder}/.local\n"


def test_renditions_that_are_wrong(project: Project) -> None:
    (project.folder / "renditions.yaml").write_text("renditions: {large: {width: wide}}")
    assert "rendition 'large', width: 'wide'" in refused(project, "up")


def test_local_dir_that_is_a_file(project: Project) -> None:
    file = project.folder / "file"
    file.write_text("mine")
    project.settings["LOCAL_DIR"] = str(file)
    for command in ("up", "down"):
        line = refused(project, command)
        assert f"{file}" in line
        assert "LOCAL_DIR" in line
    assert file.read_text() == "mine"


def test_a_second_up_says_how_to_stop_the_first(project: Project) -> None:
    (project.folder / ".local").mkdir()
    # The state file of a running supervisor, with this process in its place.
    StackState(supervisor=current_process()).write(project.folder / ".local" / "stack.json")
    line = refused(project, "up")
    assert f"a stack is already running in {project.folder}/.local (pid {os.getpid()})" in line
    assert "`resize-pipeline down`" in line
