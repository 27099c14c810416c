"""Settings: where they come from, what is refused, and what is made of them."""

import os
from pathlib import Path

import pytest

from resize_pipeline.errors import UserError
from resize_pipeline.settings import Settings, export_secrets, is_loopback, load_settings

SECRET = "hunter2-very-secret"


def test_defaults_need_nothing() -> None:
    settings = load_settings()
    assert settings == Settings()
    assert settings.minio_endpoint == "http://127.0.0.1:9000"
    assert settings.kafka_topic == "minio-events"
    assert settings.dead_letter_topic == "minio-events.dead-letters"
    assert settings.runs_local_minio
    assert settings.runs_local_kafka


class TestPrecedence:
    @pytest.fixture(autouse=True)
    def _credentials(self, tmp_path: Path) -> None:
        (tmp_path / ".local").mkdir()
        (tmp_path / ".local/credentials.env").write_text("MINIO_ACCESS_KEY=from-credentials\n")

    def access_key(self) -> str:
        key = load_settings().minio_access_key
        assert key
        return key.get_secret_value()

    def test_credentials_file_is_read(self) -> None:
        assert self.access_key() == "from-credentials"

    def test_dotenv_wins_over_credentials(self) -> None:
        Path(".env").write_text("MINIO_ACCESS_KEY=from-dotenv\n")
        assert self.access_key() == "from-dotenv"

    def test_the_environment_wins_over_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Path(".env").write_text("MINIO_ACCESS_KEY=from-dotenv\n")
        monkeypatch.setenv("MINIO_ACCESS_KEY", "from-environment")
        assert self.access_key() == "from-environment"

    def test_an_empty_variable_counts_as_unset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MINIO_ACCESS_KEY", "")
        assert self.access_key() == "from-credentials"

    @pytest.mark.parametrize("where", ["dotenv", "environment"])
    def test_local_dir_says_where_the_credentials_are(
        self, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "other").mkdir()
        (tmp_path / "other/credentials.env").write_text("MINIO_ACCESS_KEY=from-other\n")
        if where == "dotenv":
            Path(".env").write_text("LOCAL_DIR=other\n")
        else:
            monkeypatch.setenv("LOCAL_DIR", str(tmp_path / "other"))
        assert self.access_key() == "from-other"

    def test_strangers_in_dotenv_are_left_alone(self) -> None:
        Path(".env").write_text("DAGSTER_HOME=/x\nSOMETHING=1\nSOURCE_BUCKET=photos\n")
        assert load_settings().source_bucket == "photos"


class TestExportSecrets:
    NAMES = ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "KAFKA_SASL_PASSWORD")

    @pytest.fixture(autouse=True)
    def _clean_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in self.NAMES:
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)

    def test_secrets_of_files_are_put_where_dagster_looks(self) -> None:
        export_secrets(Settings(minio_secret_key=SECRET))
        assert os.environ["MINIO_SECRET_KEY"] == SECRET
        assert "MINIO_ACCESS_KEY" not in os.environ

    def test_an_exported_one_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MINIO_SECRET_KEY", "exported")
        export_secrets(Settings(minio_secret_key=SECRET))
        assert os.environ["MINIO_SECRET_KEY"] == "exported"

    def test_an_empty_one_counts_as_unset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in reading: otherwise Dagster would sign with an empty key."""
        monkeypatch.setenv("MINIO_SECRET_KEY", "")
        export_secrets(Settings(minio_secret_key=SECRET))
        assert os.environ["MINIO_SECRET_KEY"] == SECRET


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MINIO_ENDPOINT", "127.0.0.1:9000"),
        ("MINIO_ENDPOINT", "ftp://127.0.0.1"),
        ("MINIO_ENDPOINT", "http://"),
        ("MINIO_ENDPOINT", "http://host:9000/path"),
        ("MINIO_ENDPOINT", "http://host:9000?a=b"),
        ("MINIO_ENDPOINT", "http://host:99999"),
        ("MINIO_ENDPOINT", "http://host:port"),
        ("MINIO_ENDPOINT", "http://[::1"),
        ("KAFKA_BOOTSTRAP_SERVERS", ","),
        ("KAFKA_BOOTSTRAP_SERVERS", "host:port"),
        ("KAFKA_BOOTSTRAP_SERVERS", "host:99999"),
        ("KAFKA_BOOTSTRAP_SERVERS", "one:9092,two:"),
        ("KAFKA_TOPIC_PARTITIONS", "0"),
        ("KAFKA_TOPIC_PARTITIONS", "three"),
        ("KAFKA_REPLICATION_FACTOR", "-2"),
        ("KAFKA_SECURITY_PROTOCOL", "plaintext"),
        ("KAFKA_SASL_MECHANISM", "GSSAPI"),
        ("PARTITIONS", "weekly"),
        ("PARTITIONS_START", "2026-13-01"),
        ("RUN_MAX_OBJECTS", "0"),
        ("RUN_MAX_BYTES", "-1"),
        ("SENSOR_MAX_UNFINISHED_RUNS", "0"),
        ("BATCH_MAX_OBJECTS", "1.5"),
        ("BATCH_MAX_BYTES", "64M"),
        ("SOURCE_MAX_BYTES", "0"),
        ("SOURCE_MAX_PIXELS", "0"),
        ("KAFKA_START", "yesterday"),
        ("KAFKA_START", "2026-11-22T10:00:00"),
        ("RENDER_TIMEOUT_S", "0"),
        ("RENDER_MEMORY_BYTES", "1000000"),
        ("RETRY_S", "-1"),
        ("DELETE_RENDITIONS", "some"),
        ("CONTACT_SHEETS", "maybe"),
        ("CONTACT_SHEET_MAX_BYTES", "10"),
        ("LOCAL_STACK", "2"),
        ("UI_PORT", "65536"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as refused:
        load_settings()
    message = str(refused.value)
    assert f"{name}: " in message
    assert "\n" not in message
    assert len(message) < 400


def test_all_wrong_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UI_PORT", "x")
    Path(".env").write_text("PARTITIONS=weekly\n")
    with pytest.raises(UserError, match=r"(?=.*UI_PORT: )(?=.*PARTITIONS: )"):
        load_settings()


def test_a_dotenv_that_is_not_text_is_refused() -> None:
    Path(".env").write_bytes(b"SOURCE_BUCKET=\xff\xfe\n")
    with pytest.raises(UserError, match=r"\.env"):
        load_settings()


def test_messages_and_reprs_keep_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MINIO_SECRET_KEY", "MINIO_ROOT_PASSWORD", "KAFKA_SASL_PASSWORD"):
        monkeypatch.setenv(name, SECRET)
    assert SECRET not in repr(load_settings())
    monkeypatch.setenv("MINIO_ENDPOINT", f"http://user:{SECRET}@host:9000")
    with pytest.raises(UserError, match="MINIO_ENDPOINT") as refused:
        load_settings()
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("http://minio:9000", ("minio", 9000)),
        ("http://minio:9000/", ("minio", 9000)),
        ("http://minio", ("minio", 80)),
        ("https://minio", ("minio", 443)),
        ("http://[::1]:9000", ("::1", 9000)),
    ],
)
def test_minio_address(endpoint: str, address: tuple[str, int]) -> None:
    assert Settings(minio_endpoint=endpoint).minio_address == address


@pytest.mark.parametrize(
    ("servers", "address"),
    [
        ("kafka:9093", ("kafka", 9093)),
        ("kafka", ("kafka", 9092)),
        (" one:1 , two:2", ("one", 1)),
        ("[::1]:9092", ("::1", 9092)),
        ("[::1]", ("::1", 9092)),
    ],
)
def test_kafka_address(servers: str, address: tuple[str, int]) -> None:
    assert Settings(kafka_bootstrap_servers=servers).kafka_address == address


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("0.0.0.0", False),  # noqa: S104
        ("10.0.0.1", False),
        ("fe80::1", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_loopback(*, host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_what_up_starts() -> None:
    foreign = Settings(
        minio_endpoint="https://minio.example.com", kafka_bootstrap_servers="[::1]:9092"
    )
    assert not foreign.runs_local_minio
    assert foreign.runs_local_kafka
    none = Settings(local_stack=False)
    assert not none.runs_local_minio
    assert not none.runs_local_kafka


@pytest.mark.parametrize(
    "start", ["earliest", "latest", "2026-11-22T10:00:00Z", "2026-11-22 10:00+01:00"]
)
def test_where_a_sensor_starts(start: str) -> None:
    assert Settings(kafka_start=start).kafka_start == start


def test_suffixes() -> None:
    assert Settings().suffixes[:2] == [".jpg", ".jpeg"]
    assert Settings(source_suffixes=" .JPG, ,.Png,").suffixes == [".jpg", ".png"]


def test_round_trip_through_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        minio_secret_key=SECRET,
        minio_endpoint="https://minio.example.com",
        minio_ca_file="ca.pem",
        contact_sheets=False,
        partitions="daily",
        partitions_start="2025-06-01",
        local_dir="here",
        run_max_objects=7,
    )
    environment = settings.to_environment()
    assert "KAFKA_SASL_PASSWORD" not in environment
    # A child may run in another folder.
    assert environment["MINIO_CA_FILE"] == str(tmp_path / "ca.pem")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir("/")
    assert load_settings().to_environment() == environment
    assert load_settings().minio_secret_key == settings.minio_secret_key
