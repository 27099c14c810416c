"""What dead letters of strangers cost: a run, `status` and `dead-letters list`, with none and many.

    python -m benchmarks.dead_letters [--letters N] [--rounds N] [--out FOLDER]

A pipeline as `resize-pipeline up` runs it. Each figure is measured with an empty dead-letter topic
and again once a producer has written N letters of N keys. A run covers the event of one picture,
and its time is Dagster's, from its start to its end; the commands are whole processes. The first
measurement after the letters counts like the others and is also given alone, because the index of
dead letters then has to catch up.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import dagster as dg
import typer
from kafka import KafkaProducer

from benchmarks.stack import OUT, machine, photograph, write
from resize_pipeline.settings import Settings
from tests.support.project import Project
from tests.support.standing import instance_of
from tests.support.waiting import wait_until

RUN_TIMEOUT_S = 300.0
HEADERS = [
    ("error-class", b"PermanentError"),
    ("error-message", b"not a picture that can be decoded"),
    ("identity", b"e 0123456789abcdef"),
    ("run-id", b"0" * 36),
    ("attempt", b"1"),
    ("topic", b"minio-events"),
    ("partition", b"0"),
    ("offset", b"1"),
]


def flood(bootstrap_servers: str, topic: str, count: int, *, is_tombstone: bool = False) -> None:
    """Write that many dead letters of as many keys, as a stranger would."""
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers, linger_ms=20, batch_size=2**18)
    for index in range(count):
        value = None if is_tombstone else b"v" * 300
        producer.send(topic, value, b"images/spam/%d.jpg" % index, HEADERS)
    producer.flush(300)
    producer.close()


def command_s(project: Project, *command: str) -> float:
    """Give the seconds that a command takes."""
    started = time.monotonic()
    done = project.run("resize-pipeline", *command, timeout_s=RUN_TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - started


def run_s(project: Project, key: str, picture: bytes) -> float:
    """Upload a picture, and give the seconds that the run of its event takes."""
    with instance_of(project) as instance:
        before = {run.run_id for run in instance.get_runs()}
        client = project.administrator()
        file = project.folder / "picture.jpg"
        file.write_bytes(picture)
        client.fput_object("images", key, str(file))

        def ended() -> float | None:
            for record in instance.get_run_records(dg.RunsFilter(statuses=[SUCCESS])):
                if record.dagster_run.run_id not in before and record.end_time:
                    return record.end_time - (record.start_time or 0)
            return None

        took = wait_until(ended, RUN_TIMEOUT_S, "the run to end")
        assert took
        return took


SUCCESS = dg.DagsterRunStatus.SUCCESS


def measure(project: Project, name: str, picture: bytes, rounds: int) -> dict[str, list[float]]:
    """Give the seconds of each round, by what was measured."""
    found: dict[str, list[float]] = {"run": [], "status": [], "dead-letters list": []}
    for index in range(rounds):
        found["run"].append(run_s(project, f"{name}-{index}.jpg", picture))
        found["status"].append(command_s(project, "status"))
        found["dead-letters list"].append(command_s(project, "dead-letters", "list"))
    return found


def main(
    letters: Annotated[int, typer.Option()] = 200_000,
    rounds: Annotated[int, typer.Option()] = 5,
    out: Annotated[Path, typer.Option()] = OUT,
) -> None:
    """Measure with none and with many, and print the ratios."""
    picture = photograph(None)
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder) / "project")
        with project.running():
            servers = f"127.0.0.1:{project.kafka_port}"
            run_s(project, "warm-up.jpg", picture)
            none = measure(project, "none", picture, rounds)
            flood(servers, Settings().dead_letter_topic, letters)
            many = measure(project, "many", picture, rounds)
    ratios: dict[str, float] = {}
    for name, few in none.items():
        typical, now = statistics.median(few), statistics.median(many[name])
        ratios[f"{name}, {letters} letters / none"] = round(now / typical, 2)
        ratios[f"{name}, first after {letters} letters / none"] = round(many[name][0] / typical, 2)
        typer.echo(
            f"{name}: {typical:.2f} s with none, {now:.2f} s with {letters} "
            f"(x {now / typical:.2f}), the first {many[name][0]:.2f} s"
        )
    write("dead_letters", out, ratios, {"none": none, "many": many}, machine=machine())


if __name__ == "__main__":
    typer.run(main)
