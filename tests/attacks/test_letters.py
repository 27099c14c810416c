"""What a stranger who may write to the dead-letter topic can do."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import dagster as dg
import pytest
from kafka import KafkaProducer

from benchmarks.dead_letters import flood
from resize_pipeline.commands.dead_letters import list_letters, replay_letters, show_letter
from resize_pipeline.commands.status import pipeline_status
from resize_pipeline.defs.sensors import minio_events as sensors
from resize_pipeline.settings import Settings
from resize_pipeline.settings.base import MIB
from tests.integration.test_pipeline import Pipeline
from tests.support.letters import current_letters
from tests.support.pictures import detailed, encoded

pytestmark = [pytest.mark.attacks, pytest.mark.attacks_long, pytest.mark.integration]

LETTERS = 200_000
PICTURE = encoded(detailed(60, 40), "PNG")
RATIO_MAX = 4.0
"""Far above what benchmarks/dead_letters.py measures: others share the machine."""
START_S = 1.0
"""Here the commands run in a process that has started; starting one takes longer than this."""
LIST_MAX_BYTES = 250 * MIB


@pytest.fixture
def pipeline(
    stack: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pipeline]:
    monkeypatch.setattr(sensors, "LONG_POLL_S", 0.1)
    with dg.instance_for_test() as instance:
        yield Pipeline(stack, tmp_path, instance)


def spoil(pipeline: Pipeline, key: str, value: bytes | None, headers: list) -> None:
    producer = KafkaProducer(
        bootstrap_servers=pipeline.settings.kafka_bootstrap_servers,
        compression_type="gzip",
        max_request_size=2**31 - 1,
    )
    bucket = pipeline.settings.source_bucket
    producer.send(
        pipeline.settings.dead_letter_topic, value, f"{bucket}/{key}".encode(), headers
    ).get(30)
    producer.close()


def seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def run_one(pipeline: Pipeline, key: str) -> None:
    before = sum(pipeline.kafka.topic_state(pipeline.settings.kafka_topic).ends.values())
    pipeline.put(key, PICTURE)
    pipeline.wait_for_events(before + 1)
    for request in pipeline.tick().run_requests:
        pipeline.run(request)
    assert key in pipeline.keys(pipeline.large)


def test_hundreds_of_thousands_of_letters_delay_nobody(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = pipeline.settings
    run_one(pipeline, "warm-up.png")

    def status() -> None:
        pipeline_status(settings, pipeline.instance, pipeline.kafka)

    def listed() -> None:
        list_letters(settings, 100, as_json=True)

    def measured(name: str) -> dict[str, float]:
        return {
            "run": min(
                seconds(partial(run_one, pipeline, f"{name}-{number}.png")) for number in range(2)
            ),
            "status": min(seconds(status) for _ in range(2)),
            "list": min(seconds(listed) for _ in range(2)),
        }

    none = measured("none")
    # A letter among the many, which a success takes back although nobody has read them all.
    spoil(pipeline, "many-0.png", b"{}", [("identity", b"other")])
    flood(settings.kafka_bootstrap_servers, settings.dead_letter_topic, LETTERS)
    capsys.readouterr()
    many = measured("many")
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 200
    assert "--all" in shown.err
    with capsys.disabled():
        for name, few in none.items():
            print(f"{name}: {few:.2f} s, with {LETTERS} letters {many[name]:.2f} s")  # noqa: T201
    assert all(many[name] < RATIO_MAX * (few + START_S) for name, few in none.items())
    key = f"{settings.source_bucket}/many-0.png".encode()
    assert key not in current_letters(pipeline.kafka, settings.dead_letter_topic)


LIST_ALL = """
import re, sys
from pathlib import Path
from resize_pipeline.commands.dead_letters import list_letters
from resize_pipeline.environment import load_settings
list_letters(load_settings(), None, as_json=False)
[peak] = re.findall(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
sys.stderr.write(peak)
"""


def test_a_list_of_all_is_a_stream(pipeline: Pipeline, tmp_path: Path) -> None:
    settings = pipeline.settings
    flood(settings.kafka_bootstrap_servers, settings.dead_letter_topic, LETTERS)
    with (tmp_path / "listed").open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-c", LIST_ALL],
            env={
                **os.environ,
                "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
                "KAFKA_TOPIC": settings.kafka_topic,
            },
            stdout=file,
            stderr=subprocess.PIPE,
            check=True,
        )
    assert (tmp_path / "listed").read_bytes().count(b"\n") == LETTERS
    assert int(done.stderr) * 1024 < LIST_MAX_BYTES


def test_what_a_stranger_writes_is_harmless_text(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    escape = b"\x1b]0;OWNED\x07\x1b[2J"
    names = ("error-class", "error-message", "identity", "run-id", "attempt", "topic", "sha256")
    spoil(pipeline, "a\x1b[31m", escape, [(name, escape) for name in names])
    spoil(pipeline, "bare", b"", [])
    spoil(pipeline, "long", b"", [("run-id", b"x" * 10**6)])
    bucket = pipeline.settings.source_bucket
    for limit in (100, None):
        for as_json in (True, False):
            list_letters(pipeline.settings, limit, as_json=as_json)
    show_letter(pipeline.settings, "a\\x1b[31m", as_json=False)
    show_letter(pipeline.settings, "bare", as_json=False)
    replay_letters(pipeline.settings, ["bare"], as_json=False)
    shown = capsys.readouterr()
    assert f"{bucket}/a\\x1b[31m" in shown.out
    assert all(line.isprintable() for line in (shown.out + shown.err).splitlines())
    assert max(map(len, shown.out.splitlines())) < 20_000
    run_one(pipeline, "good.png")


def test_headers_cost_no_memory(pipeline: Pipeline) -> None:
    """A message of a few kilobytes with a million empty headers took 64 MB more for each reader."""
    spoil(pipeline, "bomb", b"", [("", b"")] * 1_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    list_letters(pipeline.settings, 100, as_json=True)
    run_one(pipeline, "good.png")
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 48 * MIB
