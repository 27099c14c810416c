"""Whole runs on warm workers: who executes them, and what is left of one whose worker is killed."""

import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import dagster as dg
import psutil
import pytest
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import pack_value
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG
from dagster_celery.tasks import create_execute_job_task
from dotenv import dotenv_values
from minio import Minio
from redis import Redis

from resize_pipeline.instance.celery_launcher import CheckedCeleryRunLauncher
from resize_pipeline.instance.home import INSTANCE_FILE
from resize_pipeline.local.processes.state import StackState, read_state
from tests.support.names import NAMES
from tests.support.pictures import detailed, encoded
from tests.support.project import REPOSITORY, Project
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

BUCKETS = ("processed", "processed-medium", "processed-thumbnail")
PICTURE = encoded(detailed(1600, 1200), "JPEG")
PICTURES = 24
RENDERED_TIMEOUT_S = 240.0
# A test waits less.
IMPATIENT = {
    "poll_interval_seconds: 30": "poll_interval_seconds: 3",
    "start_timeout_seconds: 180": "start_timeout_seconds: 30",
}
STARTED_BY = re.compile(r"Started process for run \(pid: (\d+)\)")


@dataclass
class WorkersProject(Project):
    """A project with deploy/celery in its folder, where `up --workers` has its instance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        home = self.folder / "deploy" / "celery"
        shutil.copytree(REPOSITORY / "deploy" / "celery", home)
        text = (home / "dagster.yaml").read_text()
        for patient, impatient in IMPATIENT.items():
            assert text.count(patient) == 1
            text = text.replace(patient, impatient)
        (home / "dagster.yaml").write_text(text)

    def environment(self) -> dict[str, str]:
        own = super().environment()
        for name in ("DAGSTER_HOME", "DAGSTER_STORAGE_DIR"):
            own.pop(name)
        # Inside of `instance` there are those of the instance.
        exported = {name: os.environ.get(name) for name in ("DAGSTER_HOME", "DAGSTER_STORAGE_DIR")}
        return own | {name: value for name, value in exported.items() if value}

    def state(self) -> StackState:
        state = read_state(self.folder / ".local" / "stack.json")
        assert state
        return state

    def process(self, name: str) -> psutil.Process:
        """The process of a service, as soon as there is one."""

        def find() -> psutil.Process | None:
            found = [one for one in self.state().services if one.name == name]
            assert found, name
            return found[0].process.find() if found[0].process else None

        process = wait_until(find, 30, f"{name} to run")
        assert process
        return process

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Open the instance as `resize-pipeline` does in another terminal."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.variables().items():
                patch.setenv(name, value)
            with dg.DagsterInstance.get() as instance:
                yield instance

    def broker(self) -> Redis:
        return Redis.from_url(self.variables()["CELERY_BROKER_URL"])

    def variables(self) -> dict[str, str]:
        """What `up --workers` leaves for commands in other terminals."""
        found = dotenv_values(self.folder / ".local" / INSTANCE_FILE)
        return {name: value for name, value in found.items() if value}

    def put(self, *keys: str) -> None:
        minio = self.administrator()
        for key in keys:
            minio.put_object("images", key, io.BytesIO(PICTURE), len(PICTURE))

    def rendered(self) -> set[str]:
        """The keys that have all of their renditions."""
        minio = self.administrator()
        return set.intersection(*(keys(minio, bucket) for bucket in BUCKETS))


def keys(minio: Minio, bucket: str) -> set[str]:
    found = minio.list_objects(bucket, recursive=True)
    return {str(one.object_name).partition(".jpg")[0] + ".jpg" for one in found}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkersProject]:
    project = WorkersProject(tmp_path_factory.mktemp("workers"))
    with project.running("up", "--workers", "1"):
        yield project
    assert not left_behind(project), "something survives `down`"


def left_behind(project: WorkersProject) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if str(project.folder) in " ".join([*process.cmdline(), process.cwd()]):
                found.append(process)
        except psutil.Error:
            continue
    return found


def runs_of(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs of the sensor, newest first."""
    return [run for run in instance.get_runs() if "resize_pipeline/offsets" in run.tags]


def pids_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[int]:
    """The processes that executed a run."""
    said = (record.message for record in instance.all_logs(run.run_id))
    return [int(match[1]) for line in said if (match := STARTED_BY.match(line))]


def task_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    again = instance.get_run_by_id(run.run_id)
    assert again
    return again.tags[DAGSTER_CELERY_TASK_ID_TAG]


def looked_up(broker: Redis) -> int:
    """How often a value was asked for, as those of results are."""
    return broker.info("commandstats")["cmdstat_get"]["calls"]


def wait_for_renditions(project: WorkersProject, *expected: str) -> None:
    wait_until(lambda: set(expected) <= project.rendered(), RENDERED_TIMEOUT_S, str(expected))


def wait_until_finished(instance: dg.DagsterInstance) -> None:
    wait_until(
        lambda: all(run.is_finished for run in instance.get_runs()), RENDERED_TIMEOUT_S, "runs"
    )


def wait_for_queued(instance: dg.DagsterInstance, count: int, tag: str) -> None:
    queued = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])
    wait_until(
        lambda: sum(tag in run.tags for run in instance.get_runs(queued)) == count,
        RENDERED_TIMEOUT_S,
        f"{count} runs with {tag} in the queue",
    )


@contextmanager
def held_run(
    project: WorkersProject, instance: dg.DagsterInstance, *names: str
) -> Iterator[tuple[dg.DagsterRun, psutil.Process]]:
    """Put pictures, and stop the process that executes their run until the block ends."""
    project.put(*names)

    def find() -> tuple[dg.DagsterRun, psutil.Process] | None:
        started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
        for run in instance.get_runs(started):
            for pid in pids_of(instance, run):
                with suppress(psutil.NoSuchProcess):
                    process = psutil.Process(pid)
                    # Its children render; before there are any, it may be only about to begin.
                    if process.children():
                        process.suspend()
                        return run, process
        return None

    found = wait_until(find, RENDERED_TIMEOUT_S, "a run to render")
    assert found
    try:
        yield found
    finally:
        with suppress(psutil.NoSuchProcess):
            found[1].resume()


def test_a_worker_renders(project: WorkersProject) -> None:
    project.put("plain.jpg")
    wait_for_renditions(project, "plain.jpg")
    with project.instance() as instance:
        wait_until_finished(instance)
        [run] = runs_of(instance)
        [pid] = pids_of(instance, run)
        assert psutil.Process(pid).ppid() == project.process("worker1").pid
    assert project.status()["lag"] == 0, "`status` finds the instance by itself"


@pytest.mark.parametrize("whole", [False, True])
def test_a_worker_killed_in_the_middle_of_a_run(project: WorkersProject, *, whole: bool) -> None:
    """The process that executes the run, or the worker that this is a child of."""
    names = [f"{'worker' if whole else 'child'}-{number}.jpg" for number in range(PICTURES)]
    with project.instance() as instance:
        with held_run(project, instance, *names) as (killed, process):
            children = process.children()
            (project.process("worker1") if whole else process).kill()
            wait_until(
                lambda: not any(one.is_running() for one in [process, *children]), 30, "their end"
            )
        wait_for_renditions(project, *names)
        wait_until_finished(instance)
        lost = instance.get_run_by_id(killed.run_id)
        assert lost
        assert lost.status is dg.DagsterRunStatus.FAILURE
        repeated = [run for run in runs_of(instance) if run.root_run_id == killed.run_id]
        assert [run.status for run in repeated] == [dg.DagsterRunStatus.SUCCESS]


def test_the_broker_killed_with_a_run_queued(project: WorkersProject) -> None:
    names = [f"broker-{number}.jpg" for number in range(PICTURES)]
    with project.instance() as instance:
        with held_run(project, instance, *names) as (going_on, process):
            # The one worker is busy.
            project.put("queued.jpg")
            wait_for_queued(instance, 1, "resize_pipeline/offsets")
            broker = project.process("valkey")
            broker.kill()
            wait_until(lambda: project.process("valkey") != broker, 30, "another broker")
        wait_for_renditions(project, *names, "queued.jpg")
        wait_until_finished(instance)
        assert pids_of(instance, going_on) == [process.pid], "executed once"
        for run in runs_of(instance)[:2]:
            assert run.status is dg.DagsterRunStatus.SUCCESS


def test_the_broker_s_data_lost_with_a_run_that_is_not_begun(project: WorkersProject) -> None:
    with project.instance() as instance:
        worker = project.process("worker1")
        worker.suspend()
        try:
            project.put("forgotten.jpg")
            starting = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING])
            broker = project.broker()
            wait_until(
                lambda: instance.get_runs(starting) and broker.llen("dagster"),
                RENDERED_TIMEOUT_S,
                "a run in the broker",
            )
            [sent] = instance.get_runs(starting)
            broker.flushall()
        finally:
            worker.resume()
        wait_for_renditions(project, "forgotten.jpg")
        wait_until_finished(instance)
        lost = instance.get_run_by_id(sent.run_id)
        assert lost
        assert lost.status is dg.DagsterRunStatus.FAILURE
        assert not pids_of(instance, lost), "never begun"


def test_the_result_lost_while_its_run_goes_on(project: WorkersProject) -> None:
    names = [f"result-{number}.jpg" for number in range(PICTURES)]
    with project.instance() as instance:
        with held_run(project, instance, *names) as (going_on, process):
            broker = project.broker()
            assert broker.delete(f"celery-task-meta-{task_of(instance, going_on)}")
            seen = looked_up(broker)
            wait_until(lambda: looked_up(broker) >= seen + 3, 60, "monitoring to have looked")
        wait_for_renditions(project, *names)
        wait_until_finished(instance)
        assert pids_of(instance, going_on) == [process.pid], "executed once"
        run = instance.get_run_by_id(going_on.run_id)
        assert run
        assert run.status is dg.DagsterRunStatus.SUCCESS


def test_a_run_delivered_twice(project: WorkersProject) -> None:
    names = [f"twice-{number}.jpg" for number in range(PICTURES)]
    with project.instance() as instance:
        with held_run(project, instance, *names) as (run, process):
            origin = run.job_code_origin
            assert origin
            launcher = instance.run_launcher
            assert isinstance(launcher, CheckedCeleryRunLauncher)
            arguments = ExecuteRunArgs(
                origin, run.run_id, instance.get_ref(), set_exit_code_on_failure=True
            )
            create_execute_job_task(launcher.celery).si(
                execute_job_args_packed=pack_value(arguments)
            ).set(task_id=task_of(instance, run)).apply_async(queue="dagster")
        wait_until(lambda: len(pids_of(instance, run)) == 2, RENDERED_TIMEOUT_S, "the second one")
        wait_for_renditions(project, *names)
        wait_until_finished(instance)
        records = instance.all_logs(run.run_id)
        types = [one.dagster_event_type for one in records if one.is_dagster_event]
        assert types.count(dg.DagsterEventType.RUN_START) == 1
        assert types.count(dg.DagsterEventType.RUN_SUCCESS) == 1
        assert process.pid == pids_of(instance, run)[0]
        last = instance.get_run_by_id(run.run_id)
        assert last
        assert last.status is dg.DagsterRunStatus.SUCCESS


def test_a_live_run_goes_before_a_backfill_s(project: WorkersProject) -> None:
    names = [f"before-{number}.jpg" for number in range(PICTURES)]
    hours = "2026-02-01-00:00,2026-02-01-01:00"
    backfill = ("dagster", "job", "backfill", "-j", NAMES.job, "--noprompt", "--partitions", hours)
    with project.instance() as instance:
        with held_run(project, instance, *names):
            done = project.run(*backfill)
            assert done.returncode == 0, done.stderr
            wait_for_queued(instance, 2, "dagster/backfill")
            project.put("live.jpg")
            wait_for_queued(instance, 1, "resize_pipeline/offsets")
        wait_for_renditions(project, *names, "live.jpg")
        wait_until_finished(instance)
        records = instance.get_run_records(limit=3)
        order = sorted(records, key=lambda record: record.start_time or 0)
        tags = ["dagster/backfill" in record.dagster_run.tags for record in order]
        assert tags == [False, True, True]
        created = min(records, key=lambda record: record.create_timestamp)
        assert "dagster/backfill" in created.dagster_run.tags, "the live run came last"


def test_the_code_server_killed_with_a_run_going_on(project: WorkersProject) -> None:
    """Webserver and daemon find the one that takes its place, and no run ends with it."""
    names = [f"server-{number}.jpg" for number in range(PICTURES)]
    with project.instance() as instance:
        with held_run(project, instance, *names) as (going_on, _):
            server = project.process("code-server")
            server.kill()
            wait_until(lambda: project.process("code-server") != server, 30, "another server")
        project.put("served.jpg")
        wait_for_renditions(project, *names, "served.jpg")
        wait_until_finished(instance)
        run = instance.get_run_by_id(going_on.run_id)
        assert run
        assert run.status is dg.DagsterRunStatus.SUCCESS
