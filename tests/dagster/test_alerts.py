"""What a person is told of, once, and again until it was taken."""

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, BACKFILL_ID_TAG, WILL_RETRY_TAG

from resize_pipeline.defs.sensors import alerts as notifications
from resize_pipeline.defs.sensors.alerts import NotToldError, will_be_repeated
from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.kafka.dead_letters import DeadLetter
from tests.dagster.fakes import NOW, fake_settings
from tests.dagster.project import Project
from tests.support.webhook import Webhook, running_webhook

THIS_HOUR = NOW.strftime("%Y-%m-%d-%H:00")
AWAY = TransientError("Kafka at K does not answer: start it")
WRONG = UserError("Kafka at K has no topic 'x': run `resize-pipeline provision`")


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    with running_webhook() as one:
        monkeypatch.setenv("WEBHOOK_URL", one.url)
        yield one


@pytest.fixture
def project(tmp_path: Path, webhook: Webhook) -> Iterator[Project]:
    retries = {"run_retries": {"enabled": True, "max_retries": 3}}
    with dg.instance_for_test(overrides=retries, temp_dir=str(tmp_path)) as instance:
        project = Project(instance, tmp_path, fake_settings(tmp_path, webhook_url=webhook.url))
        yield project


@pytest.fixture
def tick(project: Project) -> Callable[[str], SensorExecutionData]:
    """Evaluate a sensor and keep its cursor unless it raises, as the daemon does."""
    cursors: dict[str, str | None] = {}

    def evaluate(name: str) -> SensorExecutionData:
        definitions = project.definitions
        assert definitions.resources
        repository = definitions.get_repository_def()
        context = dg.build_sensor_context(
            instance=project.instance,
            cursor=cursors.get(name),
            repository_def=repository,
            sensor_name=name,
            resources={key: definitions.resources[key] for key in ("kafka", "pipeline", "webhook")},
        )
        answer = repository.get_sensor_def(name).evaluate_tick(context)
        cursors[name] = answer.cursor
        return answer

    return evaluate


@pytest.fixture
def failed_runs(tick: Callable[[str], SensorExecutionData]) -> Callable[[], SensorExecutionData]:
    tick("failed_run_sensor")
    return lambda: tick("failed_run_sensor")


@pytest.fixture
def dead_letters(tick: Callable[[str], SensorExecutionData]) -> Callable[[], SensorExecutionData]:
    return lambda: tick("dead_letter_sensor")


def fail(project: Project, error: Exception) -> dg.DagsterRun:
    project.kafka.error = error
    run_id = project.run(partition=THIS_HOUR, raise_on_error=False).run_id
    project.kafka.error = None
    run = project.instance.get_run_by_id(run_id)
    assert run
    return run


class TestFailedRuns:
    def test_one_that_failed_for_good_is_told_of_once(
        self, project: Project, failed_runs: Callable, webhook: Webhook
    ) -> None:
        run = fail(project, WRONG)
        failed_runs()
        failed_runs()
        [notice] = webhook.posts
        text = notice.pop("text")
        url = f"http://127.0.0.1:3000/runs/{run.run_id}"
        assert notice == {
            "run_id": run.run_id,
            "job": "resize_images_job",
            "partition": THIS_HOUR,
            "error": str(WRONG),
            "url": url,
        }
        for part in (run.run_id[:8], "resize_images_job", THIS_HOUR, "has no topic 'x'", url):
            assert part in text
        assert "\n" not in text

    def test_one_that_dagster_repeats_is_not(
        self, project: Project, failed_runs: Callable, webhook: Webhook
    ) -> None:
        assert fail(project, AWAY).tags[WILL_RETRY_TAG] == "true"
        assert "Dagster retries" in failed_runs().skip_message
        assert webhook.posts == []

    def test_after_one_that_is_repeated_comes_the_next(
        self, project: Project, failed_runs: Callable, webhook: Webhook
    ) -> None:
        fail(project, AWAY)
        run = fail(project, WRONG)
        failed_runs()
        failed_runs()
        assert [notice["run_id"] for notice in webhook.posts] == [run.run_id]

    @pytest.mark.parametrize("status", [500, 404, 302])
    def test_what_the_webhook_did_not_take_is_told_again(
        self, project: Project, failed_runs: Callable, webhook: Webhook, status: int
    ) -> None:
        runs = [fail(project, WRONG) for _ in range(2)]
        webhook.statuses += [200, status]
        webhook.headers["Location"] = webhook.url
        failed_runs()
        with pytest.raises(NotToldError, match=f"answered {status}"):
            failed_runs()
        failed_runs()
        failed_runs()
        assert [notice["run_id"] for notice in webhook.taken] == [run.run_id for run in runs]
        assert len(webhook.posts) == 3

    def test_an_error_with_a_class_of_its_own(
        self,
        project: Project,
        failed_runs: Callable,
        webhook: Webhook,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        fail(project, ZeroDivisionError("division\nby <!channel> `zero`"))
        monkeypatch.setattr(notifications, "will_be_repeated", lambda *_: False)
        failed_runs()
        [notice] = webhook.posts
        assert notice["error"] == "ZeroDivisionError: division by <!channel> `zero`"
        assert "`ZeroDivisionError: division by &lt;!channel&gt; 'zero'`" in notice["text"]

    def test_one_whose_process_is_gone(
        self, project: Project, failed_runs: Callable, webhook: Webhook
    ) -> None:
        job = project.definitions.get_job_def("resize_images_job")
        run = project.instance.create_run_for_job(
            job, status=dg.DagsterRunStatus.STARTED, tags={"dagster/max_retries": "0"}
        )
        project.instance.report_run_failed(run, "its code server is gone")
        failed_runs()
        [notice] = webhook.posts
        assert notice["error"] == "its code server is gone"
        assert notice["partition"] is None

    def test_not_decided_yet(self, project: Project) -> None:
        with pytest.raises(NotToldError, match="not decided yet"):
            will_be_repeated(project.instance, dg.DagsterRun(job_name="x"))

    @pytest.mark.parametrize(
        ("status", "tags", "expected"),
        [
            (BulkActionStatus.REQUESTED, {}, True),
            (BulkActionStatus.COMPLETED, {}, False),
            (BulkActionStatus.COMPLETED, {AUTO_RETRY_RUN_ID_TAG: "other"}, True),
        ],
    )
    def test_runs_of_a_backfill_that_is_over_are_not_repeated(
        self, project: Project, status: BulkActionStatus, tags: dict[str, str], *, expected: bool
    ) -> None:
        backfill = PartitionBackfill(
            "backfill", status, from_failure=False, tags={}, backfill_timestamp=0.0
        )
        project.instance.add_backfill(backfill)
        ours = {WILL_RETRY_TAG: "true", BACKFILL_ID_TAG: "backfill", **tags}
        assert (
            will_be_repeated(project.instance, dg.DagsterRun(job_name="x", tags=ours)) is expected
        )


def letter(key: bytes, *, identity: str = "1", name: str = "PermanentError") -> DeadLetter:
    return DeadLetter(key, b"{}", name, f"{name} of it", identity, "run", 1)


def send(project: Project, *letters: DeadLetter) -> None:
    project.kafka.send_dead_letters(project.settings.dead_letter_topic, letters)


class TestDeadLetters:
    def test_new_ones_are_told_of_once(
        self, project: Project, dead_letters: Callable, webhook: Webhook
    ) -> None:
        project.minio.put("junk.png", b"junk")
        assert project.run(partition=THIS_HOUR).success
        dead_letters()
        dead_letters()
        [notice] = webhook.posts
        assert notice["new_dead_letters"] == 1
        assert notice["first_keys"] == ["images/junk.png"]
        [reason] = notice["reasons"]
        assert reason["count"] == 1
        assert reason["error_class"] == "PermanentError"
        assert "1 new dead letter: `images/junk.png`\n" in notice["text"]
        assert reason["example"] in notice["text"]

        send(project, letter(b"images/a"), letter(b"images/b", name="Malformed"))
        dead_letters()
        assert webhook.posts[1]["first_keys"] == ["images/a", "images/b"]
        assert {one["error_class"] for one in webhook.posts[1]["reasons"]} == {
            "PermanentError",
            "Malformed",
        }

    def test_a_letter_that_is_written_again_is_not_new(
        self, project: Project, dead_letters: Callable, webhook: Webhook
    ) -> None:
        send(project, letter(b"a"))
        dead_letters()
        send(project, letter(b"a"))
        dead_letters()
        assert len(webhook.posts) == 1
        send(project, letter(b"a", identity="of other content"))
        dead_letters()
        assert len(webhook.posts) == 2

    def test_one_that_was_taken_back_meanwhile_is_none(
        self, project: Project, dead_letters: Callable, webhook: Webhook
    ) -> None:
        send(project, letter(b"a"))
        project.kafka.send_dead_letters(project.settings.dead_letter_topic, [], taken_back=[b"a"])
        dead_letters()
        assert webhook.posts == []

    def test_what_the_webhook_did_not_take_is_told_again(
        self, project: Project, dead_letters: Callable, webhook: Webhook
    ) -> None:
        send(project, letter(b"a"))
        webhook.statuses += [500]
        with pytest.raises(TransientError, match="answered 500"):
            dead_letters()
        dead_letters()
        dead_letters()
        assert [notice["first_keys"] for notice in webhook.taken] == [["a"]]

    def test_keys_are_escaped_and_capped(
        self, project: Project, dead_letters: Callable, webhook: Webhook
    ) -> None:
        keys = [b"\x1b[31m`<!channel>`\n@all\xff", b"x" * 1024]
        send(project, *(letter(key) for key in keys), *(letter(b"%d" % one) for one in range(98)))
        dead_letters()
        [notice] = webhook.posts
        assert notice["new_dead_letters"] == 100
        assert len(notice["first_keys"]) == 10
        assert notice["first_keys"][0] == "\\x1b[31m`<!channel>`\\n@all\\xff"
        assert len(notice["first_keys"][1]) == 200
        assert "`\\x1b[31m'&lt;!channel&gt;'\\n@all\\xff`" in notice["text"]
        assert "and 90 more" in notice["text"]

    def test_a_flood_is_told_of_in_parts_without_a_hole(
        self,
        project: Project,
        dead_letters: Callable,
        webhook: Webhook,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(notifications, "MESSAGES_MOST", 2)
        send(project, *(letter(b"%d" % one) for one in range(5)))
        for _ in range(4):
            dead_letters()
        assert [notice["first_keys"] for notice in webhook.posts] == [["0", "1"], ["2", "3"], ["4"]]

    def test_reading_that_takes_too_long_is_gone_on_with(
        self,
        project: Project,
        dead_letters: Callable,
        webhook: Webhook,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(notifications, "READ_BUDGET_S", -1.0)
        send(project, *(letter(b"%d" % one) for one in range(2)))
        for _ in range(3):
            dead_letters()
        assert [notice["first_keys"] for notice in webhook.posts] == [["0"], ["1"]]


class TestDefinitions:
    def test_without_a_webhook_there_are_no_such_sensors(self, project: Project) -> None:
        def names() -> set[str]:
            return {one.name for one in project.definitions.get_repository_def().sensor_defs}

        ours = {"failed_run_sensor", "dead_letter_sensor"}
        assert ours <= names()
        project.configure(webhook_url=None)
        assert not ours & names()
        assert "webhook" not in (project.definitions.resources or {})
