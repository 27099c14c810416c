"""A row of the table of faults: what the metrics say while things break."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client.parser import text_string_to_metric_families

from resize_pipeline.local.processes.ports import free_port
from tests.faults.world import World, first_note, row, wait_for_messages
from tests.support.waiting import wait_until

OBJECTS = 120
SCRAPE_MOST_S = 10.0
"""Prometheus' default `scrape_timeout`."""

Samples = dict[tuple[str, str], float]
"""Values by name and by that label which is not the pipeline's."""


@contextmanager
def metrics_of(world: World) -> Iterator[int]:
    """Run `resize-pipeline metrics`, and give its port."""
    port = free_port()
    cluster = world.cluster
    process = subprocess.Popen(
        [sys.executable, "-m", "resize_pipeline", "metrics"],
        cwd=cluster.folder,
        env=cluster.environment() | {"METRICS_PORT": str(port), "PATH": os.environ["PATH"]},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr
        # Warnings about settings come first.
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if line.startswith(f"metrics at http://127.0.0.1:{port}/metrics"):
                break
        else:
            raise AssertionError("".join(said))
        yield port
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()


def scrape(port: int) -> Samples:
    address = f"http://127.0.0.1:{port}/metrics"
    with urllib.request.urlopen(address, timeout=SCRAPE_MOST_S) as answer:
        text = answer.read().decode()
    return {
        (
            sample.name.removeprefix("resize_pipeline_"),
            "".join(value for name, value in sample.labels.items() if name != "pipeline"),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def lag_of(samples: Samples) -> float:
    return sum(value for (name, _), value in samples.items() if name == "lag_messages")


def agrees(world: World, samples: Samples) -> None:
    """Compare with what `status` says, while nothing moves."""
    status = world.cluster.status()
    assert lag_of(samples) == status.lag
    assert sum(v for (name, _), v in samples.items() if name == "dead_letters") == (
        status.dead_letters
    )
    assert samples["unfinished_runs", ""] == status.unfinished_count
    assert samples["failed_runs", "true"] == status.healed_count
    assert samples["failed_runs", "false"] == status.failed_count - status.healed_count
    assert samples["gaps", ""] == len(status.gaps)
    assert samples["daemon_up", ""] == (status.daemon == "running")


@row(
    "metrics through a dead daemon, a dead Kafka and a backlog",
    "ABCDFGH",
    evidence=first_note,
)
def metrics_through_faults(world: World) -> None:
    cluster = world.cluster
    world.settled()
    with metrics_of(world) as port:
        before = scrape(port)
        assert before["up", "kafka"] == before["up", "minio"] == before["up", "dagster"] == 1
        cluster.stop("daemon")
        with world.storm(OBJECTS).raging():
            pass
        wait_for_messages(world, OBJECTS)
        samples = scrape(port)
        assert lag_of(samples) >= OBJECTS
        assert samples["oldest_event_age_seconds", ""] > 0
        agrees(world, samples)

        cluster.kill("kafka")
        # An answer is given again for a second.
        samples = wait_until(
            lambda: not (found := scrape(port))["up", "kafka"] and found, 30.0, "a dead Kafka"
        )
        assert samples["up", "minio"] == samples["up", "dagster"] == 1
        assert not lag_of(samples)
        assert samples["objects_total", "rendered"] == before["objects_total", "rendered"]
        world.notes.append("metrics: kafka is down")

        cluster.start("kafka")
        cluster.start("daemon")
        world.settled()
        samples = wait_until(
            lambda: (found := scrape(port)).get(("oldest_event_age_seconds", "")) == 0 and found,
            60.0,
            "metrics without an event that waits",
        )
        agrees(world, samples)
        rendered = samples["objects_total", "rendered"] - before["objects_total", "rendered"]
        assert rendered >= OBJECTS
        counted = samples["put_to_rendition_seconds_count", ""]
        assert counted - before["put_to_rendition_seconds_count", ""] >= OBJECTS

    # A process that starts anew counts on.
    with metrics_of(world) as port:
        again = scrape(port)
        assert again["objects_total", "rendered"] == samples["objects_total", "rendered"]
