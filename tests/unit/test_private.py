"""Other accounts get no permissions for LOCAL_DIR and `.env`, whatever they had before."""

import os
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from resize_pipeline import cli
from resize_pipeline.errors import UserError
from resize_pipeline.local import private
from resize_pipeline.local.stack import prepare_local_dir
from resize_pipeline.settings import Settings


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def _usual_umask():
    old = os.umask(0o022)
    yield
    os.umask(old)


def test_a_new_folder_is_its_owners_alone(tmp_path: Path) -> None:
    prepare_local_dir(Settings(local_dir=tmp_path / "new" / ".local"))
    assert mode(tmp_path / "new" / ".local") == 0o700


@pytest.mark.parametrize("former", [0o755, 0o777, 0o750, 0o711])
def test_an_existing_folder_is_closed_with_what_is_in_it(tmp_path: Path, former: int) -> None:
    local = tmp_path / ".local"
    runs = local / "dagster" / "history" / "runs.db"
    runs.parent.mkdir(parents=True)
    local.chmod(former)
    runs.touch(0o644)
    (local / "credentials.env").touch(0o644)
    (local / "minio").mkdir()
    outside = tmp_path / "outside"
    outside.touch(0o644)
    (local / "link").symlink_to(outside)
    prepare_local_dir(Settings(local_dir=local))
    assert mode(local) == mode(local / "minio") == mode(runs.parent) == 0o700
    assert mode(runs) == mode(local / "credentials.env") == 0o600
    assert mode(outside) == 0o644


def test_an_existing_dotenv_is_closed(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("A=b\n")
    dotenv.chmod(0o644)
    prepare_local_dir(Settings(local_dir=tmp_path / ".local"))
    assert mode(dotenv) == 0o600
    assert dotenv.read_text() == "A=b\n"


def test_a_folder_of_everybody_is_refused_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    home = tmp_path / "home"
    home.mkdir(0o755)
    monkeypatch.setenv("HOME", str(home))
    for folder in (shared, home):
        before = mode(folder)
        with pytest.raises(UserError, match=f"LOCAL_DIR is {folder}, .*a folder of its own"):
            prepare_local_dir(Settings(local_dir=folder))
        assert mode(folder) == before


def test_a_folder_of_another_account_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    tmp_path.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(UserError, match="belongs to another user: run this as that user"):
        private.make_private_dir(tmp_path)


@pytest.mark.parametrize(("command", "expected"), [("down", 0o077), ("resize", 0o022)])
def test_what_commands_write_is_private_except_the_pictures_of_resize(
    command: str, expected: int
) -> None:
    CliRunner().invoke(cli.app, [command, "missing.jpg", "--out", "out"])
    assert os.umask(0o022) == expected
