"""Completion events over a real Kafka: each object is announced, whatever happened before."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from resize_pipeline.defs.jobs import run_config
from resize_pipeline.defs.ops import batch
from resize_pipeline.defs.sensors import minio_events as sensors
from resize_pipeline.errors import TransientError
from resize_pipeline.settings import Settings
from tests.integration.test_pipeline import Pipeline
from tests.support.letters import read_all
from tests.support.pictures import detailed, encoded
from tests.support.project import REPOSITORY

pytestmark = pytest.mark.integration

ONE = encoded(detailed(60, 40), "PNG")
CONSUMER_TIMEOUT_S = 60


@pytest.fixture(params=["", "catalog"], ids=["no catalogue", "catalogue"])
def pipeline(
    request: pytest.FixtureRequest,
    stack: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    # A tick that finds nothing would wait for a message that nobody sends.
    monkeypatch.setattr(sensors, "LONG_POLL_S", 0.1)
    bucket = f"catalog-{os.urandom(4).hex()}" if request.param else ""
    settings = stack.model_copy(update={"catalog_bucket": bucket, "completion_events": True})
    with dg.DagsterInstance.ephemeral() as instance:
        yield Pipeline(settings, tmp_path, instance)


def execute(pipeline: Pipeline, run_config: dict[str, Any]) -> bool:
    job = pipeline.definitions.get_job_def(pipeline.names.job)
    assert job.partitions_def
    return job.execute_in_process(
        instance=pipeline.instance,
        partition_key=job.partitions_def.get_last_partition_key(),
        run_config=run_config,
        raise_on_error=False,
    ).success


def reconcile(pipeline: Pipeline) -> bool:
    config = run_config(pipeline.names, reconcile=True)
    return execute(pipeline, config)


def work_off(pipeline: Pipeline, events: int) -> None:
    """Wait for so many events in all, and run what the sensor asks for until nothing is left."""
    pipeline.wait_for_events(events)
    while requests := pipeline.tick().run_requests:
        for request in requests:
            pipeline.run(request)


def announced(pipeline: Pipeline) -> list[tuple[str, str]]:
    """Return key and status of all completion events, in order of keys and then of time."""
    found = [
        json.loads(message.value)["data"]
        for message in read_all(pipeline.kafka, pipeline.settings.completion_topic)
        if message.value
    ]
    return sorted(((one["key"], one["status"]) for one in found), key=lambda one: one[0])


def test_every_object_is_announced_once(pipeline: Pipeline) -> None:
    pipeline.put("a'b/é.png", ONE)
    pipeline.put("broken.jpg", b"no picture")
    work_off(pipeline, 2)
    assert announced(pipeline) == [("a'b/é.png", "rendered"), ("broken.jpg", "rejected")]
    [message] = [
        json.loads(one.value)
        for one in read_all(pipeline.kafka, pipeline.settings.completion_topic)
        if one.key == f"{pipeline.settings.source_bucket}/a'b/é.png".encode() and one.value
    ]
    large, small = message["data"]["renditions"]
    stored = pipeline.root.stat_object(pipeline.large, "a'b/é.png")
    assert (large["uri"], large["bytes"]) == (f"s3://{pipeline.large}/a'b/é.png", stored.size)
    assert small["uri"] == f"s3://{pipeline.small}/thumbs/a'b/é.png"

    assert reconcile(pipeline)
    assert len(announced(pipeline)) == 2, "all were announced"

    pipeline.root.remove_object(pipeline.settings.source_bucket, "broken.jpg")
    work_off(pipeline, 3)
    assert announced(pipeline)[1:] == [("broken.jpg", "rejected"), ("broken.jpg", "missing")]


def test_what_was_not_announced_is_announced_by_reconciliation(pipeline: Pipeline) -> None:
    pipeline.configure(completion_events=False)
    for key in ("a.png", "b.png"):
        pipeline.put(key, ONE)
    pipeline.put("c.png", b"no picture")
    work_off(pipeline, 3)
    pipeline.configure(completion_events=True)
    assert announced(pipeline) == []
    assert reconcile(pipeline)
    everything = [("a.png", "rendered"), ("b.png", "rendered"), ("c.png", "rejected")]
    assert announced(pipeline) == everything
    assert reconcile(pipeline)
    assert announced(pipeline) == everything


def test_an_analysis_that_is_added_is_announced(pipeline: Pipeline) -> None:
    if not pipeline.settings.catalog_bucket:
        pytest.skip("analyses are kept in the catalogue")
    pipeline.put("a.png", ONE)
    work_off(pipeline, 1)
    specs = pipeline.settings.renditions_file
    specs.write_text(f"{specs.read_text()}analyses: {{entropy: }}\n")
    pipeline.configure()
    assert reconcile(pipeline)
    without, with_it = (
        json.loads(one.value)["data"]["analyses"]
        for one in read_all(pipeline.kafka, pipeline.settings.completion_topic)
        if one.value
    )
    assert without == {}
    assert with_it["entropy"]["values"]["entropy"] > 0


def test_a_run_that_can_not_announce_fails_and_is_made_up_for(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it was killed between its last write and its events."""

    def refuse(*_: object) -> None:
        msg = "Kafka does not answer"
        raise TransientError(msg)

    pipeline.put("a.png", ONE)
    pipeline.wait_for_events(1)
    [request] = pipeline.tick().run_requests
    with monkeypatch.context() as patch:
        patch.setattr(batch, "completion", refuse)
        assert not execute(pipeline, request.run_config)
    assert pipeline.keys(pipeline.large) == {"a.png"}
    assert announced(pipeline) == []
    pipeline.run(request)
    assert announced(pipeline) == [("a.png", "rendered")]


def test_the_consumer_of_the_documentation(pipeline: Pipeline) -> None:
    pipeline.put("a.png", ONE)
    work_off(pipeline, 1)
    text = (REPOSITORY / "docs" / "completions.md").read_text()
    [program] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len([line for line in program.splitlines() if line]) <= 10
    program = program.replace("minio-events.renditions", pipeline.settings.completion_topic)
    server = pipeline.settings.kafka_bootstrap_servers
    program = program.replace(
        "KafkaConsumer(topic, ", f'KafkaConsumer(topic, bootstrap_servers="{server}", '
    )
    program = program.replace('group_id="albums"', f'group_id="{os.urandom(4).hex()}"')
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        lines = {process.stdout.readline().strip(), process.stdout.readline().strip()}
    finally:
        process.kill()
        process.communicate()
    assert lines == {
        f"a.png large s3://{pipeline.large}/a.png",
        f"a.png small s3://{pipeline.small}/thumbs/a.png",
    }


def test_a_topic_that_is_not_there_is_named(stack: Settings, tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        pipeline = Pipeline(stack, tmp_path, instance)
        pipeline.configure(completion_events=True)
        pipeline.put("a.png", ONE)
        assert not reconcile(pipeline)
        topic = pipeline.settings.completion_topic
        logged = instance.get_run_records(limit=1)[0].dagster_run.run_id
        events = instance.all_logs(logged)
        text = " ".join(str(one.dagster_event) for one in events if one.dagster_event)
        assert f"has no topic '{topic}': run `resize-pipeline provision`" in text
        pipeline.provision_again()
        assert reconcile(pipeline)
        assert announced(pipeline) == [("a.png", "rendered")]
