"""Uploads without events, and a bucket without rules: the check, the status and the webhook."""

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import dagster as dg
import pytest

from resize_pipeline.commands.status import PipelineStatus, as_tables, pipeline_status
from resize_pipeline.defs import silence
from resize_pipeline.errors import MissingBucketError, RefusedError, TransientError
from resize_pipeline.kafka.offsets import Cursor
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from tests.dagster.fakes import NOW, event, fake_settings
from tests.dagster.project import Project
from tests.support.pictures import detailed, encoded
from tests.support.sensor_state import NAME, keep_state
from tests.support.webhook import Webhook, running_webhook

THIS_HOUR = NOW.strftime("%Y-%m-%d-%H:00")
PNG = encoded(detailed(20, 10), "PNG")
GONE = MissingBucketError("MinIO at M has no bucket 'images': run `resize-pipeline provision`")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setattr(silence, "LATENCY_S", 0.0)
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield Project(instance, tmp_path, fake_settings(tmp_path))


def watch(project: Project, ago: dt.timedelta) -> None:
    """Let the sensor have had its first tick some time ago."""
    cursor = Cursor(
        topic="minio-events",
        topic_id="id-1",
        next_offsets={0: project.kafka.end(0)},
        watched_since=(dt.datetime.now(dt.UTC) - ago).timestamp(),
    )
    keep_state(project.instance, cursor.model_dump_json())


def reconcile(project: Project, **config: object) -> dg.ExecuteInProcessResult:
    return project.run(
        partition=THIS_HOUR, config={"reconcile": True, **config}, raise_on_error=False
    )


def result(run: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    [*_, last] = run.get_asset_check_evaluations()
    assert (last.asset_key.to_user_string(), last.check_name) == ("raw_images", "events_arrive")
    return last


def check(project: Project) -> dg.AssetCheckEvaluation:
    job = project.definitions.get_job_def("check_renditions_job")
    key = dg.AssetCheckKey(dg.AssetKey("raw_images"), "events_arrive")
    job = job.get_subset(asset_check_selection={key})
    return result(
        job.execute_in_process(instance=project.instance, tags={"dagster/partition": THIS_HOUR})
    )


def status_of(project: Project) -> PipelineStatus:
    return pipeline_status(
        project.settings,
        project.instance,
        cast(KafkaResource, project.kafka),
        cast(MinioResource, project.minio),
    )


def upload(project: Project, *keys: str, ago: dt.timedelta = dt.timedelta(0)) -> None:
    for key in keys:
        project.minio.put(key, PNG, dt.datetime.now(dt.UTC) - ago)


def test_uploads_without_events_are_counted_and_healed(project: Project) -> None:
    watch(project, dt.timedelta(hours=1))
    upload(project, *(f"{number}.png" for number in range(17)))
    upload(project, "announced.png")
    now_ms = int(time.time() * 1000)
    project.kafka.produce(event("announced.png", dt.datetime.now(dt.UTC)), timestamp=now_ms)
    run = reconcile(project)
    assert run.success
    assert "announced.png" in project.minio.keys("large-bucket")
    found = result(run)
    assert not found.passed
    assert (found.description or "").startswith("17 objects had no event on topic minio-events")
    assert not check(project).passed
    status = status_of(project)
    [line] = status.silence
    assert "17 objects had no event" in line
    assert f"no events: {line}" in [str(part) for part in as_tables(status)]
    assert not status.is_well
    assert result(reconcile(project)).passed, "it was the renditions' turn"
    assert status_of(project).is_well
    assert check(project).passed


def test_a_follow_up_run_does_not_hide_what_the_first_one_found(project: Project) -> None:
    watch(project, dt.timedelta(hours=1))
    upload(project, "a.png")
    reconcile(project)
    assert reconcile(project, start_after="a.png").get_asset_check_evaluations() == []
    assert not status_of(project).is_well


@pytest.mark.parametrize(
    ("watched", "uploaded"),
    [
        (dt.timedelta(minutes=5), dt.timedelta(minutes=6)),
        (dt.timedelta(days=9), dt.timedelta(days=8)),
    ],
)
def test_what_the_topic_need_not_know_is_not_missed(
    project: Project, watched: dt.timedelta, uploaded: dt.timedelta
) -> None:
    watch(project, watched)
    upload(project, "a.png", ago=uploaded)
    assert result(reconcile(project)).passed


def test_before_the_sensor_s_first_tick_nothing_is_missed(project: Project) -> None:
    upload(project, "a.png")
    assert result(reconcile(project)).passed


def test_the_tick_remembers_since_when_the_topic_is_watched(project: Project) -> None:
    project.tick()
    first = Cursor.parse(project.cursor, NAME)
    project.kafka.produce(event("a.png"))
    project.tick()
    second = Cursor.parse(project.cursor, NAME)
    assert first
    assert second
    assert first.watched_since
    assert first.watched_since == second.watched_since


def test_more_records_than_can_be_read_count_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "READ_BUDGET_S", -1.0)
    watch(project, dt.timedelta(hours=1))
    upload(project, "a.png")
    project.kafka.produce(event("b.png"), event("c.png"), timestamp=int(time.time() * 1000))
    assert result(reconcile(project)).passed


def test_rules_that_are_gone_are_seen_at_once(project: Project) -> None:
    assert check(project).passed
    assert status_of(project).is_well
    project.minio.rules = []
    for found in (check(project), result(reconcile(project))):
        assert not found.passed
        assert "`resize-pipeline provision`" in (found.description or "")
    assert "no notification rules" in status_of(project).silence[0]
    assert not status_of(project).is_well


def test_a_target_that_is_offline_is_seen_before_an_object_lacks_its_event(
    project: Project,
) -> None:
    project.minio.target_is_online = False
    for found in (check(project), result(reconcile(project))):
        assert not found.passed
        assert "does not reach the Kafka of its target 'resize_pipeline'" in (
            found.description or ""
        )
    assert "does not reach the Kafka" in status_of(project).silence[0]
    assert not status_of(project).is_well
    project.minio.target_is_online = True
    assert status_of(project).is_well


def test_a_server_that_does_not_say_whether_its_target_is_online(project: Project) -> None:
    project.minio.target_is_online = None
    assert check(project).passed
    assert status_of(project).is_well


def test_a_bucket_that_is_gone_is_said_before_the_run_fails(project: Project) -> None:
    project.minio.rules = GONE
    project.kafka.error = TransientError("Kafka at K does not answer: start it")
    run = reconcile(project)
    assert not run.success
    assert result(run).description == str(GONE)
    project.kafka.error = None
    assert status_of(project).silence == [str(GONE)]


def test_a_user_that_may_not_see_the_rules_says_nothing_about_them(project: Project) -> None:
    project.minio.rules = RefusedError("MinIO at M refuses access to bucket 'images'")
    assert check(project).passed
    assert status_of(project).is_well


def test_a_server_that_is_away_is_an_error_of_the_status(project: Project) -> None:
    project.minio.rules = TransientError("MinIO at M does not answer: start it")
    status = status_of(project)
    assert status.error == "MinIO at M does not answer: start it"
    assert not status.is_well


class TestWebhook:
    @pytest.fixture
    def webhook(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
        with running_webhook() as one:
            monkeypatch.setenv("WEBHOOK_URL", one.url)
            project.configure(webhook_url=one.url)
            yield one

    def tick(self, project: Project, cursor: str | None) -> str | None:
        definitions = project.definitions
        assert definitions.resources
        repository = definitions.get_repository_def()
        names = ("minio", "pipeline", "webhook")
        context = dg.build_sensor_context(
            instance=project.instance,
            cursor=cursor,
            repository_def=repository,
            sensor_name="silence_sensor",
            resources={name: definitions.resources[name] for name in names},
        )
        return repository.get_sensor_def("silence_sensor").evaluate_tick(context).cursor

    def test_is_told_once_and_told_when_it_is_over(
        self, project: Project, webhook: Webhook
    ) -> None:
        cursor = self.tick(project, None)
        assert webhook.posts == []
        project.minio.rules = []
        cursor = self.tick(project, cursor)
        cursor = self.tick(project, cursor)
        [notice] = webhook.posts
        assert "no notification rules" in str(notice["problem"])
        assert "no notification rules" in notice["text"]
        project.minio.rules = TransientError("MinIO at M does not answer: start it")
        cursor = self.tick(project, cursor)
        project.configure(webhook_url=webhook.url)
        project.minio.rules = type(project.minio)().rules
        cursor = self.tick(project, cursor)
        assert [one["problem"] for one in webhook.posts[1:]] == [None]
        assert "have events again" in webhook.posts[1]["text"]

    def test_a_notice_that_was_not_taken_is_sent_again(
        self, project: Project, webhook: Webhook
    ) -> None:
        project.minio.rules = []
        webhook.statuses += [500]
        with pytest.raises(TransientError):
            self.tick(project, None)
        self.tick(project, None)
        assert len(webhook.taken) == 1
