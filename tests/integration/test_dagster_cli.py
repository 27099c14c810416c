"""The Dagster command lines of docs/cli.md, each run on a live pipeline and judged by effect."""

import contextlib
import datetime as dt
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    BACKFILL_ID_TAG,
    PARTITION_NAME_TAG,
)
from minio import Minio
from PIL import Image

from resize_pipeline.defs.names import RETENTION_JOB_NAME
from resize_pipeline.defs.retention import RETENTION_SCHEDULE_NAME
from resize_pipeline.defs.schedules import CHECKS_SCHEDULE_NAME, SCHEDULE_NAME
from resize_pipeline.defs.sensors.follow_ups import SENSOR_NAME as FOLLOW_UP_SENSOR_NAME
from resize_pipeline.defs.sensors.slow_lane import SENSOR_NAME as SLOW_LANE_SENSOR_NAME
from tests.conftest import MINIO_BIN
from tests.support.names import NAMES
from tests.support.objects import exists
from tests.support.project import (
    COMMAND_TIMEOUT_S,
    NEVER,
    REPOSITORY,
    ROOT_PASSWORD,
    ROOT_USER,
    Project,
)
from tests.support.standing import instance_of, is_caught_up, is_idle, messages, standing, wait_for
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

PAGE = (REPOSITORY / "docs" / "cli.md").read_text()
BUCKETS = {
    "large": "processed",
    "medium": "processed-medium",
    "thumbnail": "processed-thumbnail",
}
ALL = set(BUCKETS)
# A run waits for the others of the session, two at a time.
RUN_TIMEOUT_S = 180.0
EXAMPLE_KEY = "deeper/path/rose.jpg"
HOUR = re.compile(r"\d{4}-\d{2}-\d{2}-\d{2}:00")


# What tells each apart, and the test that runs it.
COMMANDS = {
    "materialize": {"materialize", "--partition"},
    "launch": {"job", "launch"},
    "backfill": {"job", "backfill"},
    "range": {"materialize", "--partition-range"},
    "stop": {"sensor", "stop"},
    "start": {"sensor", "start"},
    "preview": {"sensor", "preview"},
    "replay": {"sensor", "cursor", "--delete"},
}


def commands_of_page(words: set[str]) -> list[str]:
    """Return the dagster command lines of docs/cli.md that have these words."""
    commands = dict.fromkeys(re.findall(r"`(dagster [^`]+)`", PAGE))
    return [
        command
        for command in commands
        if command != "dagster dev" and words <= set(shlex.split(command))
    ]


def command_of_page(name: str, *, key: str = "", hours: tuple[str, ...] = ()) -> list[str]:
    """Return a command of docs/cli.md with this key and these hours in place of its own."""
    (command,) = commands_of_page(COMMANDS[name])
    assert (EXAMPLE_KEY in command) == bool(key)
    assert len(HOUR.findall(command)) == len(hours)
    places = iter(hours)
    return shlex.split(HOUR.sub(lambda _: next(places), command.replace(EXAMPLE_KEY, key)))


@dataclass
class Picture:
    """A picture in the source bucket, and its renditions."""

    project: Project
    key: str

    @property
    def minio(self) -> Minio:
        return self.project.administrator()

    @property
    def hour(self) -> str:
        """The partition that it belongs to."""
        info = self.minio.stat_object("images", self.key)
        assert info.last_modified
        return info.last_modified.strftime("%Y-%m-%d-%H:00")

    def upload(self) -> None:
        data = jpeg()
        self.minio.put_object("images", self.key, io.BytesIO(data), len(data))

    def renditions(self) -> set[str]:
        return {name for name, bucket in BUCKETS.items() if exists(self.minio, bucket, self.key)}

    def lose(self, *names: str) -> None:
        for name in names:
            self.minio.remove_object(BUCKETS[name], self.key)

    def wait_for(self, *names: str) -> None:
        wait_until(lambda: set(names) <= self.renditions(), RUN_TIMEOUT_S, f"{names} of {self.key}")


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", (24, 16), os.urandom(24 * 16 * 3)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def instance(pipeline: Project) -> Iterator[dg.DagsterInstance]:
    with instance_of(pipeline) as opened:
        yield opened


@pytest.fixture(scope="module")
def pictures(pipeline: Project) -> dict[str, Picture]:
    """A picture for each test, with all renditions."""
    prefix = f"cli-{uuid.uuid4()}"
    names = ("materialize", "launch", "backfill", "range", "sensor", "reprocess")
    found = {name: Picture(pipeline, f"{prefix}/{name}.jpg") for name in names}
    for picture in found.values():
        picture.upload()
    for picture in found.values():
        picture.wait_for(*ALL)
    return found


def test_every_command_of_the_page_is_tested_here():
    assert {
        name: len(commands_of_page(words)) for name, words in COMMANDS.items()
    } == dict.fromkeys(COMMANDS, 1)
    assert len(commands_of_page(set())) == len(COMMANDS)


def ids(instance: dg.DagsterInstance) -> set[str]:
    return {run.run_id for run in instance.get_runs()}


def run_since(instance: dg.DagsterInstance, before: set[str], **tags: str) -> dg.DagsterRun:
    """Return the one run with these tags that is not among the earlier ones, once it has ended."""

    def ended() -> list[dg.DagsterRun]:
        found = [
            run for run in instance.get_runs(dg.RunsFilter(tags=tags)) if run.run_id not in before
        ]
        return found if found and all(run.is_finished for run in found) else []

    (run,) = wait_until(ended, RUN_TIMEOUT_S, f"a run with the tags {tags}")
    return run


def materialized(instance: dg.DagsterInstance, run_id: str) -> set[tuple[str, str | None]]:
    """Return the assets and partitions that a run has materialized."""
    records = instance.get_records_for_run(
        run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
    ).records
    events = [record.event_log_entry.dagster_event for record in records]
    return {
        (event.asset_key.to_user_string(), event.partition)
        for event in events
        if event and event.asset_key
    }


def done(project: Project, command: list[str]) -> str:
    """Run a command that must succeed, and return its output."""
    result = project.run(*command)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def hour_before(hour: str) -> str:
    form = "%Y-%m-%d-%H:%M"
    return (dt.datetime.strptime(hour, form) - dt.timedelta(hours=1)).strftime(form)  # noqa: DTZ007


def test_materialize_makes_only_the_selected_rendition(
    pipeline: Project, pictures: dict[str, Picture], instance: dg.DagsterInstance
):
    picture = pictures["materialize"]
    picture.lose("thumbnail", "large")
    before = ids(instance)

    done(pipeline, command_of_page("materialize", hours=(picture.hour,)))

    run = run_since(instance, before, **{PARTITION_NAME_TAG: picture.hour})
    assert picture.renditions() == {"thumbnail", "medium"}
    assert materialized(instance, run.run_id) == {("thumbnail", picture.hour)}


def test_launch_makes_the_renditions_of_the_named_object(
    pipeline: Project, pictures: dict[str, Picture], instance: dg.DagsterInstance
):
    picture, other = pictures["launch"], pictures["range"]
    picture.lose("thumbnail", "large")
    other.lose("thumbnail")
    before = ids(instance)

    done(pipeline, command_of_page("launch", key=picture.key, hours=(picture.hour,)))

    run = run_since(instance, before, **{PARTITION_NAME_TAG: picture.hour})
    assert run.status is dg.DagsterRunStatus.SUCCESS
    assert run.job_name == NAMES.job
    assert picture.renditions() == ALL
    assert other.renditions() == {"large", "medium"}
    assert materialized(instance, run.run_id) == {(name, picture.hour) for name in ALL}


def test_backfill_makes_a_run_for_each_hour(
    pipeline: Project, pictures: dict[str, Picture], instance: dg.DagsterInstance
):
    picture = pictures["backfill"]
    picture.lose(*ALL)
    before = ids(instance)
    hours = (hour_before(picture.hour), picture.hour)

    done(pipeline, command_of_page("backfill", hours=hours))

    for hour in hours:
        run = run_since(instance, before, **{PARTITION_NAME_TAG: hour})
        assert BACKFILL_ID_TAG in run.tags
        assert run.status is dg.DagsterRunStatus.SUCCESS
    assert picture.renditions() == ALL


def test_a_range_of_hours_is_one_run(
    pipeline: Project, pictures: dict[str, Picture], instance: dg.DagsterInstance
):
    picture = pictures["range"]
    picture.lose(*ALL)
    before = ids(instance)
    hours = (hour_before(picture.hour), picture.hour)

    done(pipeline, command_of_page("range", hours=hours))

    run = run_since(instance, before, **{ASSET_PARTITION_RANGE_START_TAG: hours[0]})
    assert run.tags[ASSET_PARTITION_RANGE_END_TAG] == hours[1]
    assert picture.renditions() == ALL
    assert materialized(instance, run.run_id) == {(name, hour) for name in ALL for hour in hours}


def test_reprocess_launches_a_run_for_named_objects_or_a_prefix(
    pipeline: Project, pictures: dict[str, Picture], instance: dg.DagsterInstance
):
    picture = pictures["reprocess"]
    for arguments in (
        [picture.key],
        [picture.key, "--version-id", "null"],
        ["--prefix", picture.key.removesuffix(".jpg")],
    ):
        picture.lose(*ALL)
        before = ids(instance)

        said = done(
            pipeline, ["resize-pipeline", "reprocess", *arguments, "--rendition", "thumbnail"]
        )

        ((run_id, hour),) = re.findall(r"run ([0-9a-f-]{36}), partition ([0-9:-]{16})", said)
        # A prefix belongs to the hour of its launch, which can be over since the upload.
        run = run_since(instance, before, **{PARTITION_NAME_TAG: hour})
        assert (run.run_id, run.status) == (run_id, dg.DagsterRunStatus.SUCCESS)
        assert arguments[0] == "--prefix" or hour == picture.hour
        assert picture.renditions() == {"thumbnail"}
        assert materialized(instance, run_id) == {("thumbnail", hour)}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["no/such.jpg"], "no object 'no/such.jpg' in bucket 'images': no run was launched"),
        (["a.jpg", "--rendition", "huge"], "no rendition 'huge' in "),
        (
            ["no/such.jpg", "--version-id", "v1"],
            "version 'v1' of 'no/such.jpg' in bucket 'images' does not exist",
        ),
    ],
)
def test_what_can_not_be_reprocessed_is_one_line(
    pipeline: Project, instance: dg.DagsterInstance, arguments: list[str], problem: str
):
    before = ids(instance)
    result = pipeline.run("resize-pipeline", "reprocess", *arguments)
    assert result.returncode == 1
    assert problem in result.stderr
    assert result.stderr.count("\n") == 1
    assert ids(instance) == before


def stop_sensor(pipeline: Project) -> None:
    """Stop the sensor, and wait for the tick that was under way and for its runs.

    Dagster stores the sensor's state whole at the end of a tick, so one that ends at the same
    moment sets it running again.
    """

    def stopped() -> bool:
        assert "Stopped" in done(pipeline, command_of_page("stop"))
        wait_for(pipeline, is_idle, RUN_TIMEOUT_S, "the last tick and its runs")
        return standing(pipeline).sensor == "stopped"

    wait_until(stopped, RUN_TIMEOUT_S, "the sensor to stop")


def test_the_sensor_stops_starts_where_it_was_and_replays(
    pipeline: Project, pictures: dict[str, Picture], instance: dg.DagsterInstance
):
    old = pictures["sensor"]
    new = Picture(pipeline, old.key.replace(".jpg", "-new.jpg"))
    try:
        stop_sensor(pipeline)
        old.lose(*ALL)
        new.upload()
        wait_for(pipeline, lambda status: status.lag == 1, RUN_TIMEOUT_S, "the event on the topic")
        before = ids(instance)

        previewed = done(pipeline, command_of_page("preview"))

        assert "offset_ranges" in previewed
        # It is a look only.
        assert standing(pipeline).lag == 1
        assert ids(instance) == before

        assert "Started" in done(pipeline, command_of_page("start"))

        new.wait_for(*ALL)
        assert standing(pipeline).sensor == "running"
        # It went on from its cursor: the older event was not handled again.
        assert old.renditions() == set()

        # A tick that is under way would put its own cursor back.
        stop_sensor(pipeline)
        assert "Cleared" in done(pipeline, command_of_page("replay"))
        assert standing(pipeline).lag > 1
    finally:
        done(pipeline, command_of_page("start"))

    old.wait_for(*ALL)
    wait_for(pipeline, is_caught_up, RUN_TIMEOUT_S, "the end of it")


def test_status_says_where_the_pipeline_stands(pipeline: Project, pictures: dict[str, Picture]):
    assert pictures

    wait_for(pipeline, is_caught_up, RUN_TIMEOUT_S, "the end of the topic")

    status = pipeline.status()

    assert status["lag"] == 0
    assert status["sensor"] == "running"
    assert status["last_tick"]["status"] in {"SKIPPED", "SUCCESS"}
    assert status["error"] is None
    assert status["gaps"] == []
    ends = {one["partition"]: one["end_offset"] for one in status["partitions"]}
    assert len(ends) == 3
    assert sum(ends.values()) >= len(pictures)
    assert {one["partition"]: one["next_offset"] for one in status["partitions"]} == ends

    plain = done(pipeline, ["resize-pipeline", "status"])

    assert f"topic {status['topic']}, lag 0" in plain
    assert f"sensor {NAMES.sensor}: " in plain
    assert "last tick " in plain


def test_the_definitions_pass_dagsters_own_checks_without_a_warning(
    pipeline: Project, tmp_path: Path
):
    # dg treats the folder of pyproject.toml with the package in it as the project.
    project = replace(pipeline, folder=tmp_path / "checkout")
    (project.folder / "resize_pipeline").symlink_to(REPOSITORY / "resize_pipeline")
    project.settings = {"PYTHONWARNINGS": "default", "DAGSTER_HOME": str(pipeline.folder)}
    outputs = []
    for command in ("dagster definitions validate", "dg check defs", "dg list defs --json"):
        result = project.run(*command.split())
        assert result.returncode == 0, result.stdout + result.stderr
        warnings = [
            line
            for line in result.stderr.splitlines()
            if re.search(r"warning", line, re.IGNORECASE) and "site-packages" not in line
        ]
        assert not warnings
        outputs.append(result.stdout)

    listed = json.loads(outputs[-1])
    assert {asset["asset_key"] for asset in listed["assets"]} == ALL | {"raw_images"}
    assert {job["name"] for job in listed["jobs"]} == {
        NAMES.job,
        NAMES.checks_job,
        RETENTION_JOB_NAME,
    }
    assert {one["name"] for one in listed["schedules"]} == {
        SCHEDULE_NAME,
        CHECKS_SCHEDULE_NAME,
        RETENTION_SCHEDULE_NAME,
    }
    names = {sensor["name"] for sensor in listed["sensors"]}
    assert names == {NAMES.sensor, FOLLOW_UP_SENSOR_NAME, SLOW_LANE_SENSOR_NAME}


class ConfiguredProject(Project):
    """A project that is configured by its `.env` alone: nothing is exported."""

    def __post_init__(self) -> None:
        super().__post_init__()
        example = (REPOSITORY / ".env.example").read_text()
        ports = {
            "MINIO_ENDPOINT": f"http://127.0.0.1:{self.minio_port}",
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self.kafka_port}",
            "MINIO_ROOT_USER": ROOT_USER,
            "MINIO_ROOT_PASSWORD": ROOT_PASSWORD,
            "RUN_MIN_INTERVAL_S": "0",
            "RECONCILIATION_CRON": NEVER,
            "COMPLETENESS_CRON": NEVER,
        }
        lines = [f"{name}={value}\n" for name, value in ports.items()]
        (self.folder / ".env").write_text(example + "".join(lines))

    def environment(self) -> dict[str, str]:
        # A shell sets PWD, which .env.example refers to.
        ours = {"PWD": str(self.folder)} | ({"MINIO_BIN": MINIO_BIN} if MINIO_BIN else {})
        return os.environ | ours

    @contextlib.contextmanager
    def dagster_dev(self) -> Iterator[None]:
        """Run `dagster dev` until the block ends, with all that it has started."""
        log = self.folder / "dagster-dev.log"
        program = Path(sys.executable).with_name("dagster")
        with log.open("ab") as output:
            process = subprocess.Popen(
                [program, "dev", "-p", str(self.ui_port)],
                cwd=self.folder,
                env=self.environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield
            assert process.poll() is None, log.read_text()
        finally:
            # Not the first process alone: it can end before the others and leave them behind.
            started = [one for one in psutil.process_iter() if session(one) == process.pid]
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(COMMAND_TIMEOUT_S)
            wait_until(lambda: not any(map(runs, started)), COMMAND_TIMEOUT_S, "its processes' end")


def session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def test_dagster_dev_alone_runs_the_pipeline_and_goes_on_where_it_was(tmp_path: Path):
    project = ConfiguredProject(tmp_path)
    first, second = Picture(project, "first.jpg"), Picture(project, "second.jpg")
    with project.running("stack", "up"):
        done(project, ["resize-pipeline", "provision"])
        first.upload()
        with project.dagster_dev():
            first.wait_for(*ALL)
            wait_for(project, is_idle, RUN_TIMEOUT_S, "the end of the run")
        with instance_of(project) as opened:
            (run,) = opened.get_runs()
        second.upload()

        with project.dagster_dev():
            second.wait_for(*ALL)
            wait_for(project, is_idle, RUN_TIMEOUT_S, "the end of the run")
            assert standing(project).lag == 0

        with instance_of(project) as opened:
            newer, older = opened.get_runs()
        assert older.run_id == run.run_id
        assert {older.status, newer.status} == {dg.DagsterRunStatus.SUCCESS}
        # Each event was given to one run.
        assert sum(map(messages, (older, newer))) == 2
