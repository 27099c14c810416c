"""History in PostgreSQL: ticks, runs, status and retention, as with SQLite."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml
from dagster._core.storage.runs import SqlRunStorage

from resize_pipeline.commands.status import pipeline_status
from resize_pipeline.instance.postgres_storage import PooledPostgresStorage
from resize_pipeline.instance.sqlite_storage import SharedSqliteStorage
from resize_pipeline.resources.kafka import KafkaResource
from tests.dagster.fakes import NOW, event, fake_settings
from tests.dagster.history import age, delete_finished_runs, run_ids
from tests.dagster.project import Project as FakeProject
from tests.dagster.test_schedules import check
from tests.support.pictures import detailed, encoded
from tests.support.postgres import PASSWORD, running_postgres
from tests.support.project import REPOSITORY, Project
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

HOME = REPOSITORY / "deploy" / "postgres"
LAST_HOUR = NOW.strftime("%Y-%m-%d-%H:00")
RENDERED_TIMEOUT_S = 180.0


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with running_postgres(tmp_path_factory.mktemp("postgres")) as variables:
        yield variables


@pytest.fixture
def project(
    postgres: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeProject]:
    for name, value in {**postgres, "DAGSTER_STORAGE_DIR": str(tmp_path / "storage")}.items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.from_config(str(HOME)) as instance:
        yield FakeProject(instance, tmp_path, fake_settings(tmp_path))


def test_all_but_the_storage_is_as_with_sqlite() -> None:
    ours, theirs = (
        yaml.safe_load((folder / "dagster.yaml").read_text()) for folder in (HOME, REPOSITORY)
    )
    assert ours.pop("storage")["custom"]["class"] == PooledPostgresStorage.__name__
    assert theirs.pop("storage")["custom"]["class"] == SharedSqliteStorage.__name__
    assert ours == theirs


def test_connections_stay_open_and_are_replaced(project: FakeProject) -> None:
    storages = (
        project.instance.run_storage,
        project.instance.event_log_storage,
        project.instance.schedule_storage,
    )

    def backends() -> set[int]:
        found: set[int] = set()
        for storage in storages:
            connect = getattr(storage, "index_connection", None) or storage.connect
            with connect() as connection:
                found.add(connection.execute(sa.text("select pg_backend_pid()")).scalar_one())
        return found

    [first] = backends()
    assert backends() == {first}
    with sa.create_engine(project.instance.run_storage.postgres_url).connect() as other:
        assert other.execute(sa.select(sa.func.pg_terminate_backend(first))).scalar_one()
    [second] = backends()
    assert second != first
    assert project.instance.get_runs_count() == 0


def test_ticks_runs_checks_and_status(project: FakeProject) -> None:
    project.minio.put("a.png", encoded(detailed(20, 10), "PNG"))
    project.kafka.produce(event("a.png", NOW))
    [request] = project.tick().run_requests or []
    assert project.run(request).success
    assert project.minio.keys("large-bucket") == ["a.png"]
    assert check(project, request.partition_key).success
    status = pipeline_status(project.settings, project.instance, cast(KafkaResource, project.kafka))
    assert (status.unfinished_count, status.failed_count, status.gaps) == (0, 0, [])


def test_runs_are_deleted_as_from_sqlite(project: FakeProject) -> None:
    first, second = (project.run(partition=LAST_HOUR).run_id for _ in range(2))
    first_check, second_check = (check(project, LAST_HOUR).run_id for _ in range(2))
    age(project, 8)
    assert tables_with(project, first)
    assert tables_with(project, first_check)
    kept = tables_with(project, second_check)

    delete_finished_runs(project)

    assert {second, second_check} <= run_ids(project)
    assert tables_with(project, first) == []
    assert tables_with(project, first_check) == []
    assert tables_with(project, second_check) == kept


def tables_with(project: FakeProject, text: str) -> list[str]:
    """Count the rows of Dagster's tables that contain a text."""
    storage = project.instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    found = []
    with storage.connect() as connection:
        for table in sa.inspect(connection).get_table_names():
            query = f'select count(*) from "{table}" where "{table}"::text like :text'  # noqa: S608
            count = connection.execute(sa.text(query), {"text": f"%{text}%"}).scalar_one()
            found += [f"{table}: {count}"] if count else []
    return found


@dataclass
class PostgresProject(Project):
    """A project whose exported DAGSTER_HOME is the folder for PostgreSQL."""

    postgres: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return super().environment() | {"DAGSTER_HOME": str(HOME)} | self.postgres


def test_up_and_status_with_an_exported_dagster_home(
    postgres: dict[str, str], tmp_path: Path
) -> None:
    project = PostgresProject(tmp_path, postgres=postgres)
    minio = project.administrator()
    data = encoded(detailed(300, 200), "PNG")
    with project.running():
        minio.put_object("images", "a.png", io.BytesIO(data), len(data))
        wait_until(
            lambda: list(minio.list_objects("processed-thumbnail")), RENDERED_TIMEOUT_S, "a.png"
        )
        status = project.status()
        assert (status["sensor"], status["daemon"]) == ("running", "running")
        assert status["partitions"][0]["next_offset"] is not None
    assert not list((tmp_path / ".local" / "dagster").rglob("*.db")), "history is in SQLite"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DAGSTER_PG_PASSWORD", "wrong-password", "password authentication failed"),
        ("DAGSTER_PG_PORT", "1", "Connection refused"),
        ("DAGSTER_PG_PORT", None, "DAGSTER_PG_PORT"),
    ],
)
def test_a_database_that_can_not_be_used_is_one_line(
    postgres: dict[str, str], tmp_path: Path, name: str, value: str | None, said: str
) -> None:
    wrong = {key: text for key, text in postgres.items() if key != name}
    project = PostgresProject(tmp_path, postgres=wrong | ({name: value} if value else {}))
    done = project.run("resize-pipeline", "status")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("resize-pipeline: ")
    assert said in last
    assert "Traceback" not in done.stderr
    for secret in (PASSWORD, "wrong-password"):
        assert secret not in done.stderr
