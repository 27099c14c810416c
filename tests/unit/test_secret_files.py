"""Secrets in files: what is read, and what is refused with one line that helps."""

import os
import re
from pathlib import Path

import dagster as dg
import pytest
import yaml

from resize_pipeline.environment import export_secrets, load_settings
from resize_pipeline.errors import UserError
from resize_pipeline.instance.celery_launcher import CheckedCeleryRunLauncher
from resize_pipeline.instance.postgres_storage import PooledPostgresStorage
from resize_pipeline.secret_files import SECRET_MAX_BYTES, read_secret, variable
from tests.support.deployment import DEPLOY

SECRET = "hunter2-very-secret"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("SECRETS_DIR", str(folder))
    return folder


def secret_key() -> str | None:
    key = load_settings().minio_secret_key
    return key and key.get_secret_value()


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_is_the_line_of_its_file(folder: Path, end: str) -> None:
    (folder / "minio_secret_key").write_bytes(f"{SECRET}{end}".encode())
    assert secret_key() == SECRET
    assert variable("MINIO_SECRET_KEY") == SECRET


def test_each_kind_of_secret_may_be_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("minio_root_password", "ui_password", "kafka_sasl_password", "minio_access_key")
    for name in names:
        (folder / name).write_text(f"{SECRET}-{name}\n")
    settings = load_settings()
    for name in names:
        assert getattr(settings, name).get_secret_value() == f"{SECRET}-{name}"
    for name in ("MINIO_ACCESS_KEY", "KAFKA_SASL_PASSWORD"):
        # Has the value at the end of the test taken back.
        monkeypatch.setenv(name, "")
    export_secrets(settings)
    assert os.environ["KAFKA_SASL_PASSWORD"] == f"{SECRET}-kafka_sasl_password"


def test_as_kubernetes_lays_secrets(folder: Path) -> None:
    (folder / "..2026").mkdir()
    (folder / "..2026/minio_secret_key").write_text(SECRET)
    (folder / "..data").symlink_to("..2026")
    (folder / "minio_secret_key").symlink_to("..data/minio_secret_key")
    assert secret_key() == SECRET


def test_a_variable_wins_over_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "minio_secret_key").write_text("from-the-file")
    monkeypatch.setenv("MINIO_SECRET_KEY", "from-the-environment")
    assert secret_key() == variable("MINIO_SECRET_KEY") == "from-the-environment"
    monkeypatch.setenv("MINIO_SECRET_KEY", "")
    assert secret_key() == variable("MINIO_SECRET_KEY") == "from-the-file"


def test_no_file_is_no_secret(folder: Path) -> None:
    (folder / "of_something_else").mkdir()
    assert secret_key() is None
    assert variable("MINIO_SECRET_KEY") is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b" \t\n", "is empty"),
        (f"{SECRET}\nof two lines\n".encode(), "has several lines"),
        (f"{SECRET}\x00".encode(), "has several lines or a control character"),
        (f"{SECRET} \n".encode(), "begins or ends with a blank"),
        (f" {SECRET}\n".encode(), "begins or ends with a blank"),
        (b"\xff\xfe" + SECRET.encode("utf-16"), "is not text"),
        (SECRET.encode() * SECRET_MAX_BYTES, "has more than 4096 bytes"),
        (None, "is a folder"),
    ],
)
@pytest.mark.parametrize("read", [load_settings, lambda: variable("MINIO_SECRET_KEY")])
def test_what_is_no_secret_is_refused_by_its_path(folder, content, reason, read) -> None:
    file = folder / "minio_secret_key"
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f"{file} {reason}")) as error:
        read()
    assert SECRET not in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300 + len(str(file))


@pytest.mark.skipif(os.geteuid() == 0, reason="NOT TESTED: root reads every file")
def test_a_file_that_may_not_be_read(folder: Path) -> None:
    (folder / "minio_secret_key").write_text(SECRET)
    (folder / "minio_secret_key").chmod(0)
    with pytest.raises(UserError, match=r"minio_secret_key can't be read by user \d+ \(Permission"):
        load_settings()


def test_a_file_that_can_not_be_read(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    with pytest.raises(UserError, match=rf"loop can't be read by user {os.geteuid()} \(Too many"):
        read_secret(folder / "loop")


def test_a_folder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path / "typo"))
    with pytest.raises(UserError, match=r"SECRETS_DIR: \S+/typo can't be read .*or unset it"):
        load_settings()


class TestDagster:
    """What dagster.yaml takes from variables, which no settings of ours are."""

    @pytest.fixture(autouse=True)
    def _variables(self, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("HOST", "DB", "USERNAME"):
            monkeypatch.setenv(f"DAGSTER_PG_{name}", "somewhere")
        monkeypatch.setenv("DAGSTER_PG_PORT", "5432")
        monkeypatch.setenv("DAGSTER_MAX_CONCURRENT_RUNS", "2")
        monkeypatch.setenv("DAGSTER_STORAGE_DIR", str(tmp_path))
        for name in ("DAGSTER_PG_PASSWORD", "CELERY_BROKER_URL"):
            monkeypatch.delenv(name, raising=False)
        (folder / "dagster_pg_password").write_text(f"{SECRET}\n")
        (folder / "celery_broker_url").write_text(f"redis://:{SECRET}@valkey:6379/0\n")

    def configured(self, entry: str, *keys: str) -> object:
        """Build what deploy/celery/dagster.yaml names, as Dagster does."""
        value = yaml.safe_load((DEPLOY / "celery" / "dagster.yaml").read_text())[entry]
        for key in keys:
            value = value[key]
        data = dg._serdes.ConfigurableClassData(
            value["module"], value["class"], yaml.safe_dump(value["config"])
        )
        return data.rehydrate(object)

    def test_the_broker(self) -> None:
        launcher = self.configured("run_launcher")
        assert isinstance(launcher, CheckedCeleryRunLauncher)
        assert launcher.broker == launcher.backend == f"redis://:{SECRET}@valkey:6379/0"

    def test_the_database(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[str] = []
        monkeypatch.setattr(
            PooledPostgresStorage,
            "__init__",
            lambda _, **arguments: seen.append(arguments["postgres_url"]),
        )
        with pytest.raises(AttributeError):
            self.configured("storage", "custom")
        assert seen == [f"postgresql+psycopg2://somewhere:{SECRET}@somewhere:5432/somewhere"]

    def test_a_secret_that_is_nowhere(self, folder: Path) -> None:
        (folder / "celery_broker_url").unlink()
        with pytest.raises(dg.DagsterInvalidConfigError, match='variable "CELERY_BROKER_URL"'):
            self.configured("run_launcher")
