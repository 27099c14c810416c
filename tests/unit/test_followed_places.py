"""What an error about a file, a folder, a port or the UI says is done, and the same thing works."""

import gzip
import re
import socket
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.types import Scope

from resize_pipeline.commands.resize_files import find_files
from resize_pipeline.environment import load_settings
from resize_pipeline.errors import PermanentError, ResizePipelineError
from resize_pipeline.imaging.functions import imported
from resize_pipeline.instance.open import dagster_environment
from resize_pipeline.local.private import make_private_dir
from resize_pipeline.local.processes.ports import check_free, free_port
from resize_pipeline.local.servers.minio import minio_program
from resize_pipeline.provisioning.credentials import written_credentials
from resize_pipeline.provisioning.made import Made
from resize_pipeline.provisioning.target import checked_for_set
from resize_pipeline.renditions.file import check_catalog_bucket
from resize_pipeline.resources.content_encoding import without_encoding
from resize_pipeline.settings import Settings
from resize_pipeline.webserver.guard import Rules

JPEG = b"\xff\xd8\xff\xe0 a picture"


def refused(attempt: Callable[[], object], remedy: str) -> re.Match[str]:
    """Return what the remedy names."""
    with pytest.raises(ResizePipelineError) as failed:
        attempt()
    said = str(failed.value)
    found = re.search(remedy, said)
    assert found, said
    assert "\n" not in said
    return found


@pytest.mark.parametrize("how", ["another address", "the process is stopped"])
def test_a_port_that_is_taken(how: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address: tuple[str, int] = server.getsockname()
        name = refused(
            lambda: check_free("Kafka", address, "KAFKA_BOOTSTRAP_SERVERS"),
            r"set (\w+) to another address, or stop that process",
        )[1]
        if how == "another address":
            other = Settings.model_validate({name.lower(): f"127.0.0.1:{free_port()}"})
            check_free("Kafka", other.kafka_address, name)
    if how == "the process is stopped":
        check_free("Kafka", address, name)


def test_a_minio_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "minio"
    missing = Settings(minio_bin=program)
    refused(lambda: minio_program(missing), "MINIO_BIN is .* correct it or unset it")
    program.write_text("#!/bin/sh\n")
    program.chmod(0o600)
    command = refused(lambda: minio_program(missing), r"not executable: (chmod \+x) (\S+)")
    Path(command[2]).chmod(0o700)
    assert minio_program(missing) == program
    # Without the setting, one on PATH is taken.
    monkeypatch.setenv("PATH", str(tmp_path))
    assert minio_program(Settings()) == program


def test_a_local_dir_that_others_share(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    refused(lambda: make_private_dir(shared), "LOCAL_DIR is .* set it to a folder of its own")
    make_private_dir(shared / "mine")
    assert (shared / "mine").stat().st_mode & 0o777 == 0o700


def test_a_record_that_is_damaged(tmp_path: Path) -> None:
    settings = Settings(local_dir=tmp_path)
    (tmp_path / "provisioned.json").write_text("{")
    file = refused(
        lambda: Made(settings, take_over=False), r"(\S+) can't be read .*: remove it, and repeat"
    )[1]
    Path(file).unlink()
    Made(settings, take_over=False).remember("a target", {})
    assert Made(settings, take_over=False).value("a target") == {}


def test_a_record_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wrong = Made(Settings(local_dir=tmp_path / "new" / "x"), take_over=False)
    (tmp_path / "new").write_text("")
    refused(lambda: wrong.remember("a target", {}), "can't be written .*: correct LOCAL_DIR")
    Made(Settings(local_dir=tmp_path / "other"), take_over=False).remember("a target", {})


def test_a_file_of_credentials_that_can_not_be_used(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        with written_credentials(path, "key", "secret"):
            pass

    (tmp_path / "file").write_bytes(b"\xff")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file", tmp_path / "folder", tmp_path / "file" / "x"):
        refused(lambda path=path: write(path), "choose another --credentials-file")
    write(tmp_path / "another")
    assert "secret" in (tmp_path / "another").read_text()


def test_a_secret_that_minio_would_misread() -> None:
    refused(
        lambda: checked_for_set({"sasl_password": "'quoted topic='"}),
        "choose a value that neither starts nor ends with a single quote or a line break, and that "
        "holds no name of MinIO's settings followed by '='",
    )
    assert checked_for_set({"sasl_password": "quoted topic"})


def test_a_transform_that_can_not_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(lambda: imported("own_of_a_folder:step", "transform"), "add its folder to PYTHONPATH")
    (tmp_path / "own_of_a_folder.py").write_text("def step(image): return image\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert imported("own_of_a_folder:step", "transform")


def test_a_catalogue_among_pictures() -> None:
    refused(
        lambda: check_catalog_bucket("images", "images", []), "CATALOG_BUCKET=images .*: choose one"
    )
    check_catalog_bucket("catalog", "images", [])


@pytest.mark.parametrize("how", ["the folder", "DAGSTER_HOME"])
def test_a_folder_without_an_instance(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = tmp_path / "instance"
    instance.mkdir()
    (instance / "dagster.yaml").write_text("")
    refused(
        lambda: dagster_environment(Settings()),
        "run this in the project's folder, or set DAGSTER_HOME to the folder of your Dagster",
    )
    if how == "the folder":
        monkeypatch.chdir(instance)
    else:
        monkeypatch.setenv("DAGSTER_HOME", str(instance))
    assert dagster_environment(Settings())["DAGSTER_HOME"] == str(instance)


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    refused(lambda: find_files([tmp_path], recursive=False), "is a folder: add --recursive")
    assert find_files([tmp_path], recursive=True).files


def test_an_encoding_that_is_not_supported() -> None:
    text = b"<svg/> is no picture either"
    refused(lambda: without_encoding(text, "br", 100), "upload it without, or with gzip or deflate")
    for data, encoding in (
        (text, ""),
        (gzip.compress(text), "gzip"),
        (zlib.compress(text), "deflate"),
    ):
        assert without_encoding(data, encoding, 100) == text
    with pytest.raises(PermanentError, match="does not match"):
        without_encoding(text, "gzip", 100)


def refusal(settings: Settings, host: str, origin: str | None = None) -> str:
    headers = [(b"host", host.encode())]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    answer = Rules.from_settings(settings).refusal(scope)
    return bytes(answer.body).decode() if answer else ""


def test_a_name_that_the_ui_does_not_know() -> None:
    assert "use the address that UI_HOST and UI_PORT give, or add the name to UI_ALLOWED_HOSTS" in (
        refusal(Settings(), "ui.example")
    )
    settings = Settings()
    assert refusal(settings, f"{settings.ui_host}:{settings.ui_port}") == ""
    assert refusal(Settings(ui_allowed_hosts="ui.example"), "ui.example") == ""


def test_a_page_that_is_not_the_uis() -> None:
    page = "https://page.example"
    assert "open the UI itself, or add the page's host to UI_ALLOWED_HOSTS" in (
        refusal(Settings(), "localhost:3000", page)
    )
    assert refusal(Settings(), "localhost:3000", "http://localhost:3000") == ""
    assert refusal(Settings(ui_allowed_hosts="page.example"), "localhost:3000", page) == ""


def test_a_ui_that_anybody_may_use() -> None:
    [warning] = Settings(ui_host="10.0.0.1").ui_warnings
    assert warning.endswith("set UI_PASSWORD, or UI_HOST=127.0.0.1")
    for followed in (
        Settings.model_validate({"ui_host": "10.0.0.1", "ui_password": "a-long-password"}),
        Settings(ui_host="127.0.0.1"),
    ):
        assert followed.ui_warnings == []


def test_a_server_that_is_trusted_blindly(tmp_path: Path) -> None:
    wrong = {"minio_endpoint": "https://minio", "minio_tls_skip_verify": True}
    [warning] = Settings.model_validate(wrong).warnings
    assert warning.endswith("set MINIO_CA_FILE instead")
    right = {"minio_endpoint": "https://minio", "minio_ca_file": tmp_path / "ca.pem"}
    assert list(Settings.model_validate(right).warnings) == []


def test_an_administrator_without_a_password() -> None:
    refused(
        lambda: Settings().administrator, "set it and MINIO_ROOT_USER in .env or in the environment"
    )
    Path(".env").write_text("MINIO_ROOT_USER=root\nMINIO_ROOT_PASSWORD=of-the-administrator\n")
    assert load_settings(warn=False).administrator == ("root", "of-the-administrator")
