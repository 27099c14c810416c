"""`up` creates the files that its folder lacks, and no others."""

from pathlib import Path

import pytest

from resize_pipeline.environment import load_settings
from resize_pipeline.errors import UserError
from resize_pipeline.local.folder import create_files

REPOSITORY = Path(__file__).parents[2]
OWN = ["dagster.yaml", "renditions.yaml", "workspace.yaml"]
WORKERS = ["deploy/celery/dagster.yaml", "deploy/celery/dagster_celery_config.py"]


def created(*, workers: bool = False) -> tuple[list[str], list[str]]:
    """Create the files; return what was said, and all files of this folder."""
    said: list[str] = []
    create_files(load_settings(warn=False), said.append, workers=workers)
    return said, sorted(str(path) for path in Path().rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def _no_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


@pytest.mark.parametrize(("workers", "files"), [(False, OWN), (True, sorted([*OWN, *WORKERS]))])
def test_an_empty_folder_gets_all_files_once(*, workers: bool, files: list[str]) -> None:
    assert created(workers=workers) == ([f"created {', '.join(files)} in {Path.cwd()}"], files)
    assert all(Path(file).read_bytes() == (REPOSITORY / file).read_bytes() for file in files)
    assert not any(Path(file).is_symlink() for file in files)
    assert created(workers=workers) == ([], files)


def test_a_file_that_is_there_stays() -> None:
    Path("renditions.yaml").write_text("mine")
    assert created()[0] == [f"created dagster.yaml, workspace.yaml in {Path.cwd()}"]
    assert Path("renditions.yaml").read_text() == "mine"


def test_what_settings_name_elsewhere_is_not_created(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/opt/dagster")
    Path(".env").write_text("RENDITIONS_FILE=specs.yaml\n")
    assert created() == ([f"created workspace.yaml in {Path.cwd()}"], [".env", "workspace.yaml"])


def test_a_folder_that_takes_no_file_is_named() -> None:
    Path("deploy").write_text("a file")
    with pytest.raises(UserError, match=rf"^{Path.cwd()}/deploy/celery/dagster\S*.yaml can't be"):
        created(workers=True)
