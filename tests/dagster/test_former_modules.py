"""A dagster.yaml of the version before is answered with what to write in it instead."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resize_pipeline import FORMER_MODULES
from resize_pipeline.errors import UserError
from resize_pipeline.instance.home import INSTANCE_FILE, dagster_environment
from resize_pipeline.instance.open import open_instance
from resize_pipeline.settings import Settings

WORKSPACE = Path(__file__).parents[2] / "workspace.yaml"
CLASSES = {
    "launcher": "CheckedRunLauncher",
    "celery_launcher": "CheckedCeleryRunLauncher",
    "run_coordinator": "PromptRunCoordinator",
    "postgres_storage": "PooledPostgresStorage",
}
ENTRY = {
    "run_launcher": "run_launcher:\n  module: {}\n  class: {}\n",
    "run_coordinator": "run_coordinator:\n  module: {}\n  class: {}\n",
    "storage.custom": "storage:\n  custom:\n    module: {}\n    class: {}\n    config: {{}}\n",
}


def entry_of(former: str, module: str) -> str:
    """Return the lines of dagster.yaml that name this module where the former one was."""
    return ENTRY[FORMER_MODULES[former][1]].format(module, CLASSES[former.rpartition(".")[2]])


def instruction(former: str) -> str:
    present, entry = FORMER_MODULES[former]
    return f"under {entry} write `module: {present}` instead of `{former}`"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return tmp_path / "dagster.yaml"


@pytest.fixture(params=FORMER_MODULES)
def former(request: pytest.FixtureRequest, file: Path) -> str:
    file.write_text(entry_of(request.param, request.param))
    return request.param


def refusal() -> str:
    with pytest.raises(UserError) as raised, open_instance(Settings()):
        pass
    return str(raised.value)


def test_our_commands_name_file_entry_and_both_modules_in_one_line(former: str, file: Path) -> None:
    assert refusal() == f"{file} names what has moved: {instruction(former)}"


def test_status_prints_the_line_and_no_traceback(file: Path) -> None:
    former = "resize_pipeline.launcher"
    file.write_text(entry_of(former, former))
    done = subprocess.run(
        [sys.executable, "-m", "resize_pipeline", "status"],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if "warning" not in line] == [
        f"resize-pipeline: {file} names what has moved: {instruction(former)}"
    ]


def dagster_ends_with(former: str, *argv: str) -> None:
    done = subprocess.run(
        [sys.executable, *argv], env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    line = f"{former} has moved: in dagster.yaml, {instruction(former)}"
    assert done.stderr.rstrip().endswith(line)


def test_dagster_s_use_of_the_class_ends_with_the_line(former: str) -> None:
    """As the daemon's does when it starts."""
    code = (
        "import dagster as dg\n"
        "with dg.DagsterInstance.get() as instance:\n"
        "    instance.run_launcher, instance.run_coordinator\n"
    )
    dagster_ends_with(former, "-c", code)


@pytest.mark.parametrize(
    ("name", "command"), [("launcher", "instance info"), ("postgres_storage", "run list")]
)
def test_dagster_s_own_commands_end_with_the_line(name: str, command: str, file: Path) -> None:
    former = f"resize_pipeline.{name}"
    file.write_text(entry_of(former, former))
    dagster_ends_with(former, "-m", "dagster", *command.split())


def test_the_definitions_do_not_load(file: Path) -> None:
    """So `dagster dev` reports a former run launcher at its start, before it fails a run."""
    former = "resize_pipeline.launcher"
    file.write_text(entry_of(former, former))
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", str(WORKSPACE)],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert f"{file} names what has moved: {instruction(former)}" in done.stdout + done.stderr


def test_all_entries_are_in_one_line(file: Path) -> None:
    several = [name for name in FORMER_MODULES if not name.endswith(".launcher")]
    file.write_text("".join(entry_of(name, name) for name in several))
    line = refusal()
    assert "\n" not in line
    for name in several:
        assert instruction(name) in line


@pytest.mark.parametrize(
    "text",
    [
        'run_launcher: {module: "resize_pipeline.launcher", class: CheckedRunLauncher}',
        "run_launcher:\n  class: CheckedRunLauncher\n  module: 'resize_pipeline.launcher' # ours",
    ],
    ids=["flow", "quoted"],
)
def test_however_yaml_writes_it(text: str, file: Path) -> None:
    file.write_text(text)
    assert instruction("resize_pipeline.launcher") in refusal()


def test_the_instance_of_workers_is_checked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    former = "resize_pipeline.celery_launcher"
    (tmp_path / "dagster.yaml").write_text(entry_of(former, former))
    (tmp_path / INSTANCE_FILE).write_text(f"DAGSTER_HOME='{tmp_path}'\n")
    with pytest.raises(UserError) as raised:
        dagster_environment(Settings(local_dir=tmp_path))
    assert instruction(former) in str(raised.value)


@pytest.mark.parametrize("text", ["", "run_launcher: 1", "storage: [1]", "storage: {custom: }"])
def test_other_content_is_left_to_dagster(text: str, file: Path, tmp_path: Path) -> None:
    file.write_text(text)
    assert dagster_environment(Settings())["DAGSTER_HOME"] == str(tmp_path)


def test_present_modules_and_comments_are_no_matter(file: Path, tmp_path: Path) -> None:
    former = "resize_pipeline.launcher"
    present = entry_of(former, FORMER_MODULES[former][0])
    file.write_text(f"# module: {former}\n{present}")
    assert dagster_environment(Settings())["DAGSTER_HOME"] == str(tmp_path)


def test_every_former_module_is_at_its_present_place() -> None:
    for present, _ in FORMER_MODULES.values():
        package, _, name = present.rpartition(".")
        folder = Path(__file__).parents[2].joinpath(*package.split("."))
        assert (folder / f"{name}.py").is_file()
