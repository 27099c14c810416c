"""The metrics: what runs did, also after restarts, without servers, and whatever strangers send."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from resize_pipeline.commands.status import pipeline_status
from resize_pipeline.errors import TransientError
from resize_pipeline.kafka.dead_letters import DeadLetter
from resize_pipeline.monitoring import scraping, totals
from resize_pipeline.monitoring.asking import FRESH_S
from resize_pipeline.monitoring.history import history
from resize_pipeline.monitoring.scraping import PipelineCollector, exposition
from tests.dagster.fakes import NOW, event, fake_settings
from tests.dagster.project import Project
from tests.support.pictures import detailed, encoded

THIS_HOUR = NOW.strftime("%Y-%m-%d-%H:00")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    # The ephemeral instance keeps no files.
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield Project(instance, tmp_path, fake_settings(tmp_path))


def collector_for(project: Project) -> PipelineCollector:
    return PipelineCollector(
        project.settings, project.instance, cast(Any, project.kafka), cast(Any, project.minio)
    )


def scraped(collector: PipelineCollector) -> Samples:
    found = text_string_to_metric_families(exposition(collector).decode())
    return {
        (sample.name, frozenset(sample.labels.items() - {("pipeline", "resize-pipeline")})): (
            sample.value
        )
        for family in found
        for sample in family.samples
    }


def scrape(project: Project) -> Samples:
    """Scrape as a process does that has just started."""
    return scraped(collector_for(project))


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"resize_pipeline_{name}", frozenset(labels.items())]


def upload(project: Project, *keys: str) -> None:
    for key in keys:
        project.minio.put(key, encoded(detailed(60, 40), "PNG"))
        project.kafka.produce(event(key), timestamp=int(time.time() * 1000))


def run_all(project: Project) -> None:
    for request in project.tick().run_requests or ():
        project.run(request)


def test_what_runs_did_is_counted_once_also_by_a_process_that_starts_later(
    project: Project,
) -> None:
    upload(project, "a.png", "b.png")
    project.minio.put("bad.png", b"no picture")
    project.kafka.produce(event("bad.png"), event("gone.png"), b"no event")
    run_all(project)
    for samples in (scrape(project), scrape(project)):
        assert value(samples, "objects_total", outcome="rendered") == 2
        assert value(samples, "objects_total", outcome="rejected") == 1
        assert value(samples, "objects_total", outcome="missing") == 1
        assert value(samples, "put_to_rendition_seconds_count") == 2
        assert value(samples, "put_to_rendition_seconds_bucket", le="3600.0") == 2
        assert value(samples, "rendering_seconds_total") > 0
        assert value(samples, "run_duration_seconds_count", status="success") == 1
        assert value(samples, "dead_letters", **{"class": "PermanentError"}) == 1
        assert value(samples, "dead_letters", **{"class": "Malformed"}) == 1
    upload(project, "c.png")
    run_all(project)
    assert value(scrape(project), "objects_total", outcome="rendered") == 3


def test_counters_do_not_fall_when_runs_are_deleted(project: Project) -> None:
    upload(project, "a.png")
    run_all(project)
    before = scrape(project)
    for run in project.instance.get_runs():
        project.instance.delete_run(run.run_id)
    after = scrape(project)
    assert value(after, "objects_total", outcome="rendered") == 1
    assert value(after, "run_duration_seconds_count", status="success") == 1
    # Its ids begin anew after a log that was deleted whole.
    upload(project, "b.png")
    run_all(project)
    assert value(scrape(project), "objects_total", outcome="rendered") == 2
    assert before.keys() == after.keys()


def test_a_backfill_is_no_delay(project: Project) -> None:
    project.minio.put("a.png", encoded(detailed(60, 40), "PNG"))
    project.run(partition=THIS_HOUR)
    samples = scrape(project)
    assert value(samples, "objects_total", outcome="rendered") == 1
    assert value(samples, "put_to_rendition_seconds_count") == 0


def test_lag_and_age_agree_with_the_status(project: Project) -> None:
    samples = scrape(project)
    assert value(samples, "lag_messages", partition="0") == 0
    assert value(samples, "oldest_event_age_seconds") == 0
    sent = time.time() - 100
    project.kafka.produce(event("a.png"), event("b.png"), timestamp=int(sent * 1000))
    samples = scrape(project)
    status = pipeline_status(project.settings, project.instance, cast(Any, project.kafka))
    assert value(samples, "lag_messages", partition="0") == status.lag == 2
    assert 100 <= value(samples, "oldest_event_age_seconds") < 160
    assert value(samples, "daemon_up") == (status.daemon == "running") == 0


def test_events_of_a_run_under_way_are_not_rendered_yet(project: Project) -> None:
    upload(project, "a.png")
    project.kafka.log[0].timestamp -= 50_000
    (request,) = project.tick().run_requests or ()
    project.instance.add_run(
        dg.DagsterRun(
            job_name=project.names.job, status=dg.DagsterRunStatus.STARTED, tags=dict(request.tags)
        )
    )
    assert value(scrape(project), "oldest_event_age_seconds") >= 50


def test_it_answers_without_servers(project: Project) -> None:
    upload(project, "a.png")
    run_all(project)
    project.kafka.error = TransientError("Kafka at 127.0.0.1:1 does not answer: start it")
    samples = scrape(project)
    assert value(samples, "up", server="kafka") == 0
    assert value(samples, "up", server="minio") == 1
    assert value(samples, "up", server="dagster") == 1
    assert not [name for name, _ in samples if "lag" in name or "dead_letters" in name]
    assert value(samples, "objects_total", outcome="rendered") == 1


def test_a_server_that_hangs_holds_up_no_scrape_and_gets_one_question(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scraping, "SCRAPE_S", 0.2)
    hangs, asked = threading.Event(), []

    def topic_state(topic: str) -> None:
        asked.append(topic)
        hangs.wait(60)

    monkeypatch.setattr(project.kafka, "topic_state", topic_state)
    collector = collector_for(project)
    for _ in range(3):
        assert value(scraped(collector), "up", server="kafka") == 0
    assert len(asked) == 1
    hangs.set()


def test_frequent_scrapes_ask_no_more_often(project: Project) -> None:
    collector = collector_for(project)
    asked: list[str] = []
    ask = project.kafka.topic_state
    project.kafka.topic_state = lambda topic: (asked.append(topic), ask(topic))[1]
    started = time.monotonic()
    for _ in range(5):
        scraped(collector)
    # The topic, and that of the dead letters.
    assert len(asked) <= 2 * (1 + (time.monotonic() - started) // FRESH_S)


def test_what_strangers_choose_is_in_no_label(project: Project) -> None:
    keys = [f"evil-{number}\n{{}}.png" for number in range(20)]
    for key in keys:
        project.minio.put(key, b"no picture")
    project.kafka.produce(*map(event, keys), b"evil", timestamp=0)
    run_all(project)
    project.kafka.send_dead_letters(
        project.settings.dead_letter_topic,
        list(_forged(20)),
    )
    names = {name for name, _ in scrape(project)}
    text = exposition(collector_for(project)).decode()
    assert "evil" not in text
    assert len(text.splitlines()) < 200
    assert names == {name for name, _ in scrape(project)}


def _forged(count: int) -> Iterator[DeadLetter]:
    for number in range(count):
        name = f"evil class {number}"
        yield DeadLetter(f"evil {number}".encode(), b"", name, name, "", "", 1)


def test_many_events_are_read_in_parts_and_shown_once_all_are(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(project, *(f"{number}.png" for number in range(4)))
    project.configure(run_max_objects=1, sensor_max_unfinished_runs=10)
    run_all(project)
    monkeypatch.setattr(totals, "CHUNK", 1)
    assert history(project.instance, project.names, 0.0) is None
    for _ in range(20):
        if found := history(project.instance, project.names, 0.0):
            break
    assert found
    assert found["objects", "rendered"] == 4
