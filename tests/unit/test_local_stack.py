"""What a first start creates: a private folder, and a password that nobody else knows."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from resize_pipeline.environment import load_settings
from resize_pipeline.errors import UserError
from resize_pipeline.local.stack import prepare_local_dir, with_root_password
from resize_pipeline.settings import Settings


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINIO_ROOT_PASSWORD", raising=False)
    return tmp_path


def test_local_dir_is_private_even_if_it_was_not(tmp_path: Path) -> None:
    local = tmp_path / ".local"
    (local / "minio" / "images").mkdir(parents=True)
    prepare_local_dir(Settings(local_dir=local))
    assert mode(local) == mode(local / "minio") == 0o700


@pytest.mark.parametrize("before", [None, "", "A=1\n", "A=1", "# minio\nMINIO_ROOT_USER=myself\n"])
def test_the_first_start_generates_a_password_once(folder: Path, before: str | None) -> None:
    dotenv = folder / ".env"
    if before is not None:
        dotenv.write_text(before)
    said: list[str] = []
    found = with_root_password(load_settings(warn=False), said.append)
    user, password = found.administrator
    assert said == [f"MinIO's administrator is {user!r}, password {password!r}, kept in .env"]
    assert len(password) == 32
    assert mode(dotenv) == 0o600
    assert dotenv.read_text().startswith(before or "MINIO_ROOT_PASSWORD=")

    again = with_root_password(load_settings(warn=False), said.append)
    assert again.administrator == found.administrator
    assert len(said) == 1


def test_each_start_elsewhere_has_another_password(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = with_root_password(Settings(local_dir=folder), lambda _: None)
    monkeypatch.chdir(tmp_path_factory.mktemp("other"))
    other = with_root_password(Settings(local_dir=folder), lambda _: None)
    assert one.administrator != other.administrator


def test_a_password_that_is_set_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIO_ROOT_PASSWORD", "of-my-own")
    assert with_root_password(load_settings(warn=False), pytest.fail).administrator == (
        "minio",
        "of-my-own",
    )
    assert not (folder / ".env").exists()


@pytest.mark.parametrize("known", ["minio123", "minioadmin"])
def test_a_well_known_password_stays_with_a_warning(folder: Path, known: str) -> None:
    (folder / ".env").write_text(f"MINIO_ROOT_PASSWORD={known}\n")
    said: list[str] = []
    found = with_root_password(load_settings(warn=False), said.append)
    assert found.administrator == ("minio", known)
    (line,) = said
    assert line.startswith("warning: MINIO_ROOT_PASSWORD is a well-known default")
    assert known not in line


@pytest.mark.parametrize("changes", [{"local_stack": False}, {"minio_endpoint": "http://s3:9000"}])
def test_no_password_is_generated_for_a_server_elsewhere(
    folder: Path, changes: dict[str, object]
) -> None:
    settings = with_root_password(Settings.model_validate(changes), pytest.fail)
    assert not (folder / ".env").exists()
    with pytest.raises(UserError, match=r"MINIO_ROOT_PASSWORD.* is not set: set it"):
        _ = settings.administrator
