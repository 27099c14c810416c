"""A dagster.yaml written for the version before says which module to write in which place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resize_pipeline import FORMER_MODULES
from resize_pipeline.errors import UserError
from resize_pipeline.instance.open import dagster_environment, open_instance
from resize_pipeline.settings import Settings

CLASSES = {
    "launcher": ("run_launcher", "CheckedRunLauncher"),
    "celery_launcher": ("run_launcher", "CheckedCeleryRunLauncher"),
    "run_coordinator": ("run_coordinator", "PromptRunCoordinator"),
}


def write(folder: Path, module: str) -> None:
    entry, name = CLASSES[module.rpartition(".")[2]]
    text = f"{entry}:\n  module: {module}\n  class: {name}\n"
    (folder / "dagster.yaml").write_text(text)


@pytest.fixture(params=[f"resize_pipeline.{name}" for name in CLASSES])
def former(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    write(tmp_path, request.param)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return request.param


def test_our_commands_say_it_in_one_line(former: str) -> None:
    with (
        pytest.raises(UserError, match=f"write {FORMER_MODULES[former]} in its place") as told,
        open_instance(Settings()),
    ):
        pass
    assert former in str(told.value)
    assert "\n" not in str(told.value)


def test_dagster_s_own_commands_end_with_the_line(former: str) -> None:
    """They import the class when they use it, as the daemon does at its start."""
    code = (
        "import dagster as dg\n"
        "with dg.DagsterInstance.get() as instance:\n"
        "    instance.run_launcher, instance.run_coordinator\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert done.stderr.rstrip().endswith(f"write {FORMER_MODULES[former]} in its place")


def test_present_modules_and_comments_are_no_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, FORMER_MODULES["resize_pipeline.launcher"])
    file = tmp_path / "dagster.yaml"
    file.write_text(f"# module: resize_pipeline.launcher\n{file.read_text()}")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    assert dagster_environment(Settings())["DAGSTER_HOME"] == str(tmp_path)


def test_every_former_module_is_at_its_present_place() -> None:
    for present in FORMER_MODULES.values():
        package, _, name = present.rpartition(".")
        folder = Path(__file__).parents[2].joinpath(*package.split("."))
        assert (folder / f"{name}.py").is_file()
