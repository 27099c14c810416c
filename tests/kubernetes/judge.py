"""Uploads photographs to a cluster, and judges what became of them as the fault matrix does.

Runs beside the pods, and says on its standard output how far it is: "uploading" as soon as it
does, "under way" once some renditions are there, "uploaded" once all photographs are, "made" once
none seems to be missing. Then it waits for a line, and judges.

Usage: judge.py PREFIX COUNT PAUSE_S BEGUN
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import urllib3
from kafka.errors import KafkaError
from minio.error import MinioException

from resize_pipeline.errors import ResizePipelineError
from resize_pipeline.settings import Settings
from tests.conftest import ROOT_PASSWORD, ROOT_USER
from tests.faults.checker import Baseline, Checker
from tests.faults.cluster import Cluster
from tests.faults.ledger import Ledger, Storm, Writer
from tests.support.deployment import REPOSITORY
from tests.support.waiting import wait_until

SIZE = (2400, 1600)
OVERWRITTEN = 5
"""Each of so many photographs is uploaded once more."""
MADE_TIMEOUT_S = 1800.0
PAUSE_S = 3.0


class Servers(Cluster):
    """The servers of a cluster that somebody else has started."""

    def __init__(self) -> None:
        self.settings = Settings(
            minio_endpoint="http://minio:9000",
            minio_root_user=ROOT_USER,
            minio_root_password=ROOT_PASSWORD,
            kafka_bootstrap_servers="events-kafka-bootstrap:9092",
            renditions_file=REPOSITORY / "renditions.yaml",
        )


def seems_made(checker: Checker) -> bool:
    """Return whether nothing is missing, as far as can be asked."""
    time.sleep(PAUSE_S)
    try:
        return not checker.lost() and not checker.stale()
    except (ResizePipelineError, KafkaError, MinioException, urllib3.exceptions.HTTPError, OSError):
        return False


def say(words: str) -> None:
    """Print a line at once."""
    print(words, flush=True)  # noqa: T201


def judge(prefix: str, count: int, pause_s: float, begun: int) -> dict[str, Any]:
    """Upload, wait, and judge."""
    cluster = Servers()
    with tempfile.TemporaryDirectory() as folder:
        checker = Checker(cluster, Ledger(Path(folder) / "ledger.jsonl"), prefix, Baseline())
        writer = Writer(lambda: cluster.minio, checker.bucket, checker.ledger)
        keys = [f"{prefix}{number:04}.jpg" for number in range(count)]
        overwritten = keys[::OVERWRITTEN]
        storm = Storm(writer, keys + overwritten, count, size=SIZE, pause_s=pause_s)
        started = time.monotonic()
        with storm.raging():
            say("uploading")
            wait_until(lambda: len(checker.snapshot()) >= begun, MADE_TIMEOUT_S, "renditions")
            before = checker.snapshot()
            say("under way")
        say("uploaded")
        deadline = started + MADE_TIMEOUT_S
        while not seems_made(checker) and time.monotonic() < deadline:
            pass
        seconds = time.monotonic() - started
        say("made")
        sys.stdin.readline()
        after = checker.snapshot()
        again = [
            name
            for name, found in before.items()
            if after.get(name) != found and not name.endswith(tuple(overwritten))
        ]
        lost, stale = checker.lost(), checker.stale()
        return {
            "uploaded": storm.acknowledged,
            "refused": storm.refused,
            "lost": len(lost),
            "stale": len(stale),
            "extra": len(checker.extra_renditions()),
            "before": len(before),
            "written again": len(again),
            "seconds": round(seconds),
            "found": [*lost[:3], *stale[:3]],
        }


if __name__ == "__main__":
    given, number, pause, share = sys.argv[1:]
    say(json.dumps(judge(given, int(number), float(pause), int(share))))
