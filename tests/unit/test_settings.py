"""Settings: their sources, the values that are refused, and what is derived from them."""

import io
import os
from pathlib import Path

import pytest
from dagster._core.definitions.utils import is_valid_owner
from dotenv.parser import parse_stream

from resize_pipeline.addresses import how_to_start, is_loopback
from resize_pipeline.environment import dotenv_warnings, export_secrets, load_settings
from resize_pipeline.errors import UserError
from resize_pipeline.settings import Settings

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
    NAMES = (
        *("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"),
        *("KAFKA_SASL_PASSWORD", "KAFKA_SSL_KEY_PASSWORD", "WEBHOOK_URL"),
    )

    @pytest.fixture(autouse=True)
    def _clean_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in self.NAMES:
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)

    def test_secrets_of_files_are_put_where_dagster_looks(self) -> None:
        export_secrets(Settings(minio_secret_key=SECRET, kafka_ssl_key_password=SECRET))
        assert os.environ["MINIO_SECRET_KEY"] == SECRET
        assert os.environ["KAFKA_SSL_KEY_PASSWORD"] == SECRET
        assert "MINIO_ACCESS_KEY" not in os.environ
        export_secrets(Settings(webhook_url="https://hooks.example.com/x"))
        assert os.environ["WEBHOOK_URL"] == "https://hooks.example.com/x"

    def test_an_exported_one_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MINIO_SECRET_KEY", "exported")
        export_secrets(Settings(minio_secret_key=SECRET))
        assert os.environ["MINIO_SECRET_KEY"] == "exported"

    def test_an_empty_one_counts_as_unset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As when settings are read: otherwise Dagster would sign with an empty key."""
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
        ("RENDER_TIMEOUT_S", "inf"),
        ("RETRY_S", "nan"),
        ("UI_PORT", "65536"),
        ("UI_PORT", "abc"),
        ("SOURCE_BUCKET", "My_Bucket"),
        ("SOURCE_BUCKET", "ab"),
        ("SOURCE_BUCKET", "a..b"),
        ("SOURCE_BUCKET", "10.0.0.1"),
        ("KAFKA_TOPIC", ".."),
        ("KAFKA_TOPIC", "a topic"),
        ("KAFKA_TOPIC", "thème"),
        ("KAFKA_TOPIC", "t" * 237),
        ("NOTIFY_KAFKA_TARGET", "a:b"),
        ("NOTIFY_KAFKA_TARGET", "a b"),
        ("NOTIFY_KAFKA_TARGET", "a/b"),
        ("NOTIFY_KAFKA_TARGET", "_"),
        ("NOTIFY_KAFKA_TARGET", "t" * 244),
        ("NOTIFY_KAFKA_TARGET", "arn:minio:lambda::x:webhook"),
        ("NOTIFY_KAFKA_TARGET", "arn:aws:s3:::images"),
        ("NOTIFY_KAFKA_TARGET", "arn:aws:sns:default::"),
        ("NOTIFY_KAFKA_BROKERS", "kafka:port"),
        ("SOURCE_SUFFIXES", ","),
        ("SOURCE_SUFFIXES", "jpg"),
        ("SOURCE_SUFFIXES", ".jpg,*.png"),
        ("SOURCE_SUFFIXES", ".jpg,."),
        ("SOURCE_SUFFIXES", ".jp?"),
        ("SOURCE_SUFFIXES", "./jpg"),
        ("SOURCE_SUFFIXES", ".jpg .png"),
        ("UI_HOST", "http://localhost"),
        ("UI_HOST", "localhost:3000"),
        ("UI_HOST", "[::1]"),
        ("UI_HOST", "127.0.0.256"),
        ("UI_HOST", "3000"),
        ("UI_HOST", "a..b"),
        ("UI_HOST", "-a"),
        ("UI_HOST", "a b"),
        ("MINIO_REGION", "us east"),
        ("MINIO_REGION", "-us"),
        ("MINIO_REGION", "us-"),
        ("MINIO_REGION", "1"),
    ],
)
@pytest.mark.parametrize("in_dotenv", [False, True])
def test_a_wrong_value_is_named_in_one_line(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, *, in_dotenv: bool
) -> None:
    if in_dotenv:
        Path(".env").write_text(f"{name}={value}\n")
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as refused:
        load_settings()
    message = str(refused.value)
    assert f"{name}: " in message
    assert f"{name}: {repr(value)[:40]}" in message
    assert "Value error" not in message
    assert "\n" not in message
    assert len(message) < 400


def test_a_value_that_pydantic_refuses_is_worded_like_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UI_PORT", "abc")
    with pytest.raises(UserError, match=r"in \.env: UI_PORT: 'abc' must be a whole number"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SOURCE_BUCKET", "my-bucket.2"),
        ("KAFKA_TOPIC", "a_b.c-D" + "t" * 229),
        ("NOTIFY_KAFKA_TARGET", "resize_pipeline"),
        ("NOTIFY_KAFKA_TARGET", "1"),
        ("NOTIFY_KAFKA_TARGET", "A.b-c_"),
        ("NOTIFY_KAFKA_TARGET", "_x"),
        ("NOTIFY_KAFKA_TARGET", "arn:minio:sqs::resize:kafka"),
        ("NOTIFY_KAFKA_TARGET", "arn:rustfs:sqs:us-east-1:resize:kafka"),
        ("NOTIFY_KAFKA_TARGET", "arn:aws:sns:default::resize-events"),
        ("NOTIFY_KAFKA_TARGET", "arn:aws:sns:zone-group:tenant$1:resize.events"),
        ("NOTIFY_KAFKA_BROKERS", "kafka-1:9092,[::1]:9093"),
        ("UI_HOST", "localhost"),
        ("UI_HOST", "0.0.0.0"),  # noqa: S104
        ("UI_HOST", "::"),
        ("UI_HOST", "fe80::1%eth0"),
        ("UI_HOST", "ui_1.example.com"),
        ("UI_HOST", "10-0-0-1.example.com."),
        ("MINIO_REGION", "eu-central-2"),
        ("MINIO_REGION", "My_region"),
        ("MINIO_ROOT_USER", "abc"),
        ("MINIO_ROOT_PASSWORD", "12345678"),
    ],
)
def test_a_right_value_is_accepted(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert load_settings().to_environment()[name] == value


@pytest.mark.parametrize(
    ("name", "value"), [("MINIO_ROOT_USER", "ab"), ("MINIO_ROOT_PASSWORD", "hunter2")]
)
def test_a_short_key_of_the_administrator_is_refused_and_not_shown(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=rf"{name}: must have at least \d characters") as refused:
        load_settings()
    assert value not in str(refused.value)


class TestSecurity:
    @pytest.mark.parametrize(
        ("values", "said"),
        [
            (
                {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_USERNAME": "u"},
                "KAFKA_SECURITY_PROTOCOL=SASL_SSL requires KAFKA_SASL_USERNAME and",
            ),
            (
                {"NOTIFY_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"},
                "NOTIFY_KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT requires KAFKA_SASL_USERNAME and",
            ),
            (
                {"KAFKA_SSL_KEYFILE": "k.pem"},
                "KAFKA_SSL_KEYFILE has no effect without KAFKA_SSL_CERTFILE",
            ),
            (
                {"NOTIFY_KAFKA_CLIENT_TLS_KEY": "k.pem"},
                "NOTIFY_KAFKA_CLIENT_TLS_KEY has no effect without NOTIFY_KAFKA_CLIENT_TLS_CERT",
            ),
            (
                {"MINIO_CA_FILE": "ca.pem", "MINIO_TLS_SKIP_VERIFY": "true"},
                "MINIO_CA_FILE has no effect with MINIO_TLS_SKIP_VERIFY",
            ),
        ],
    )
    def test_what_does_not_go_together_is_refused(self, values: dict[str, str], said: str) -> None:
        Path(".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        with pytest.raises(UserError, match=said):
            load_settings()

    @pytest.mark.parametrize("warn", [True, False])
    def test_a_server_that_is_not_verified_causes_a_warning_at_each_start(
        self, capfd: pytest.CaptureFixture[str], *, warn: bool
    ) -> None:
        endpoint = f"https://minio-{warn}.example.com".lower()
        Path(".env").write_text(f"MINIO_ENDPOINT={endpoint}\nMINIO_TLS_SKIP_VERIFY=true\n")
        for _ in range(2):
            (warning,) = load_settings(warn=warn).warnings
        assert "MINIO_TLS_SKIP_VERIFY" in warning
        assert endpoint in warning
        assert capfd.readouterr().err == f"resize-pipeline: {warning}\n"

    def test_there_is_nothing_to_verify_without_tls(self) -> None:
        assert Settings(minio_tls_skip_verify=True).warnings == []
        assert Settings(minio_endpoint="https://minio.example.com").warnings == []


class TestPorts:
    @pytest.mark.parametrize(
        ("minio", "kafka", "ui", "named"),
        [
            ("http://127.0.0.1:9092", "127.0.0.1:9092", 3000, ("MINIO", "KAFKA")),
            ("http://[::1]", "localhost:80", 3000, ("MINIO", "KAFKA")),
            ("http://127.0.0.1:9000", "127.0.0.1:9092", 9000, ("UI", "MINIO")),
            ("http://127.0.0.1:9000", "127.0.0.1", 9092, ("UI", "KAFKA")),
        ],
    )
    def test_two_servers_on_one_port_are_refused(
        self, minio: str, kafka: str, ui: int, named: tuple[str, str]
    ) -> None:
        Path(".env").write_text(
            f"MINIO_ENDPOINT={minio}\nKAFKA_BOOTSTRAP_SERVERS={kafka}\nUI_PORT={ui}\n"
            f"MINIO_SECRET_KEY={SECRET}\n"
        )
        names = {
            "MINIO": "MINIO_ENDPOINT",
            "KAFKA": "KAFKA_BOOTSTRAP_SERVERS",
            "UI": "UI_PORT",
        }
        both = f"{names[named[0]]} and {names[named[1]]} both use port"
        with pytest.raises(UserError, match=both) as refused:
            load_settings()
        assert SECRET not in str(refused.value)

    def test_servers_elsewhere_may_have_the_same_port(self) -> None:
        Settings(
            minio_endpoint="http://minio:3000", kafka_bootstrap_servers="kafka:3000", ui_port=3000
        )
        Settings(minio_endpoint="http://127.0.0.1:3000", ui_port=3000, local_stack=False)


def test_all_wrong_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UI_PORT", "x")
    Path(".env").write_text("PARTITIONS=weekly\n")
    with pytest.raises(UserError, match=r"(?=.*UI_PORT: )(?=.*PARTITIONS: )"):
        load_settings()


def test_a_dotenv_that_is_not_text_is_refused() -> None:
    Path(".env").write_bytes(b"SOURCE_BUCKET=\xff\xfe\n")
    with pytest.raises(UserError, match=r"\.env"):
        load_settings()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that can't be read")
def test_a_dotenv_that_cannot_be_read_is_refused() -> None:
    """A file of another user would do, but root reads that."""
    Path(".env").symlink_to("/proc/self/mem")
    with pytest.raises(UserError, match=r"\.env can't be read: "):
        load_settings()


def test_messages_and_reprs_keep_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MINIO_SECRET_KEY", "MINIO_ROOT_PASSWORD", "KAFKA_SASL_PASSWORD"):
        monkeypatch.setenv(name, SECRET)
    assert SECRET not in repr(load_settings())
    wrong = {
        "MINIO_ENDPOINT": f"http://user:{SECRET}@host:9000",
        "KAFKA_BOOTSTRAP_SERVERS": f"user:{SECRET}@host:9092",
        "UI_HOST": f"http://user:{SECRET}@host:3000",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as refused:
        load_settings()
    assert SECRET not in str(refused.value)
    assert all(f"{name}: " in str(refused.value) for name in wrong)


class TestDotenvWarnings:
    def warnings(self, text: str) -> list[str]:
        return dotenv_warnings(parse_stream(io.StringIO(text)))

    @pytest.mark.parametrize(
        ("name", "nearest"),
        [
            ("MINIO_ENDPIONT", "MINIO_ENDPOINT"),
            ("minio_endpiont", "MINIO_ENDPOINT"),
            ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"),
            ("UI_PROT", "UI_PORT"),
            ("RENDER_TIMEOUT", "RENDER_TIMEOUT_S"),
            ("MINIO_ACCESSKEY", "MINIO_ACCESS_KEY"),
            ("NOTIFY_KAFKA_SERVERS", "NOTIFY_KAFKA_BROKERS"),
            ("RUN_MAX_IMAGES", "RUN_MAX_BYTES"),
        ],
    )
    def test_a_misspelt_name_is_reported_with_the_nearest(self, name: str, nearest: str) -> None:
        (warning,) = self.warnings(f"SOURCE_BUCKET=x\n\n# note\nexport {name}={SECRET}\n")
        assert warning == f"line 4 is ignored: {name.upper()} is not a setting, {nearest} is"

    def test_names_of_others_are_left_alone(self) -> None:
        names = (
            "DAGSTER_HOME DAGSTER_STORAGE_DIR AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REGION "
            "PATH PYTHONPATH HOST PORT API_PORT SECRET_KEY S3_BUCKET DATABASE_URL UID LOG_DIR "
            "MINIO_BROWSER MINIO_VOLUMES MINIO_OPTS MINIO_SITE_REGION MINIO_ROOT_USER_FILE "
            "MINIO_ROOT_PASSWORD_FILE MINIO_KMS_SECRET_KEY KAFKA_NODE_ID KAFKA_LISTENERS "
            "KAFKA_HOST KAFKA_PORT KAFKA_NUM_PARTITIONS KAFKA_DEFAULT_REPLICATION_FACTOR "
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR RUN_MIGRATIONS BATCH_SIZE SOURCE_DATE_EPOCH"
        )
        assert self.warnings("".join(f"{name}=x\n" for name in names.split())) == []

    def test_every_setting_and_the_example_are_fine(self) -> None:
        assert self.warnings("".join(f"{name}=x\n" for name in Settings.model_fields)) == []
        example = (Path(__file__).parents[2] / ".env.example").read_text()
        assert self.warnings(example) == []
        assert self.warnings(example.replace("# MINIO", "MINIO").replace("# KAFKA", "KAFKA")) == []

    def test_a_line_that_cannot_be_parsed_is_reported_without_its_value(self) -> None:
        text = f'# note\n\n  KAFKA_TOPIC\nMINIO_SECRET_KEY="{SECRET}\nMINIO_REGION eu\n'
        assert self.warnings(text) == [
            "line 3 is ignored: KAFKA_TOPIC must be followed by =VALUE",
            "line 4 is ignored: must be NAME=VALUE, with quotes in pairs",
            "line 5 is ignored: must be NAME=VALUE, with quotes in pairs",
        ]

    def test_they_are_printed_once_and_on_standard_error(
        self, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        Path(".env").write_text("not parsed\nMINIO_ENDPIONT=printed-once\n")
        load_settings(warn=False)
        assert "MINIO_ENDPIONT" not in capfd.readouterr().err
        caplog.clear()
        load_settings()
        load_settings()
        output, errors = capfd.readouterr()
        assert output == ""
        assert [line.split(" is ")[0] for line in errors.splitlines()] == [
            "resize-pipeline: .env, line 1",
            "resize-pipeline: .env, line 2",
        ]
        assert not caplog.records, "python-dotenv does not warn, too"


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


@pytest.mark.parametrize("name", ["reconciliation_cron", "completeness_cron"])
def test_a_wrong_schedule_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name.upper(), "hourly")
    with pytest.raises(UserError, match=f"{name.upper()}: 'hourly' must be a cron schedule"):
        load_settings()
    monkeypatch.setenv(name.upper(), "*/5 * * * *")
    assert getattr(load_settings(), name) == "*/5 * * * *"


def test_suffixes() -> None:
    assert Settings().suffixes[:2] == [".jpg", ".jpeg"]
    assert Settings(source_suffixes=" .JPG, ,.Png,").suffixes == [".jpg", ".png"]


def test_suffixes_that_overlap_are_taken_once() -> None:
    """S3 refuses rules that select the same object."""
    assert Settings(source_suffixes=".tif,.TIF,.tiff,.tif").suffixes == [".tif", ".tiff"]
    assert Settings(source_suffixes=".raw.jpg,.jpg,.png").suffixes == [".jpg", ".png"]


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


class TestOwners:
    @pytest.mark.parametrize(
        "owner", ["me@example.com", "a.b+c@mail.example.org", "team:The A Team"]
    )
    def test_what_dagster_accepts(self, owner: str) -> None:
        assert is_valid_owner(owner)
        assert Settings(asset_owners=f" {owner},team:x , {owner}").owners == [owner, "team:x"]

    def test_none(self) -> None:
        assert Settings().owners == Settings(asset_owners="").owners == []

    @pytest.mark.parametrize(
        "owner",
        ["me", "team:", "team: ", "me@example", "@example.com", "a b@example.com", "-@x.com"],
    )
    def test_a_wrong_one_is_named(self, owner: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert not is_valid_owner(owner.strip())
        monkeypatch.setenv("ASSET_OWNERS", f"team:x,{owner}")
        with pytest.raises(UserError, match=f"ASSET_OWNERS: .*{owner.strip()!r} must be") as wrong:
            load_settings()
        assert "\n" not in str(wrong.value)


@pytest.mark.parametrize(
    "url", ["https://hooks.example.com/services/T/B/x", "http://[::1]:8065/h?a=b"]
)
def test_webhooks(url: str) -> None:
    settings = Settings(webhook_url=url)
    assert settings.webhook_url
    assert settings.webhook_url.get_secret_value() == url
    assert settings.to_environment()["WEBHOOK_URL"] == url
    assert url not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        f"hooks.example.com/{SECRET}",
        f"ftp://hooks.example.com/{SECRET}",
        f"https:///{SECRET}",
        f"https://user:{SECRET}@hooks.example.com",
        f"https://hooks.example.com:0/{SECRET}",
        f"https://hooks.example.com:99999/{SECRET}",
        f"https://[{SECRET}]/",
        f"https://hooks.example.com/{SECRET} x",
        f"https://hooks.example.com/{SECRET}\r\nX: y",
        f"https://hooks.example.com/{SECRET}é",
        f"https://hooks.example.com/#{SECRET}",
    ],
)
def test_a_wrong_webhook_is_refused_without_showing_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBHOOK_URL", url)
    with pytest.raises(UserError, match="WEBHOOK_URL: must be of the form https") as wrong:
        load_settings()
    assert SECRET not in str(wrong.value)


@pytest.mark.parametrize(
    ("hosts", "is_local"),
    [
        (["127.0.0.1"], True),
        (["localhost", "::1"], True),
        (["localhost", "kafka.example.com"], False),
    ],
)
def test_only_a_server_of_this_machine_is_started_by_up(
    *, hosts: list[str], is_local: bool
) -> None:
    assert ("resize-pipeline up" in how_to_start(hosts)) == is_local


def test_paths_that_transforms_may_read() -> None:
    assert Settings().render_limits.read_paths == ()
    settings = Settings(render_read_paths="/usr/share/fonts:/srv/logo.png:")
    assert settings.render_limits.read_paths == ("/usr/share/fonts", "/srv/logo.png")


@pytest.mark.parametrize("paths", ["fonts", "/usr/share/fonts:fonts", "/", "/.", "//", "./a"])
def test_a_relative_path_or_everything_is_refused(
    paths: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RENDER_READ_PATHS", paths)
    with pytest.raises(UserError, match=r"RENDER_READ_PATHS: .* must be an absolute path"):
        load_settings()
