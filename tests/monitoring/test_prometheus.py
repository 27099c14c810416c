"""Rules, metrics and queries as real programs see them: `make test-monitoring`."""

import dataclasses
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette

from resize_pipeline.local.processes.ports import free_port
from resize_pipeline.monitoring.samples import Reading, families
from resize_pipeline.webserver.metrics import Scrapes
from tests.support.prometheus import programs, prometheus, query
from tests.support.waiting import wait_until
from tests.unit.test_monitoring import READING, queries

pytestmark = [pytest.mark.monitoring, pytest.mark.timeout(3900)]

ALERTS = Path(__file__).parents[2] / "deploy" / "monitoring" / "alerts.yaml"
SCRAPES_TIMEOUT_S = 60.0


class Growing(Collector):
    """The metrics of a pipeline whose counters grow with each scrape."""

    def __init__(self) -> None:
        self.scrapes = 0

    def collect(self) -> Iterator[Metric]:
        self.scrapes += 1
        kinds = [("objects", "rendered"), ("delays", "3"), ("runs", "success 2"), ("render_s", "")]
        totals = dict.fromkeys(kinds, 10.0 * self.scrapes)
        reading: Reading = dataclasses.replace(READING, totals=totals)
        yield from families("p", reading)


def exposition(collector: Collector) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)


def promtool(*arguments: str, stdin: bytes = b"", folder: Path) -> str:
    done = subprocess.run(
        [programs() / "promtool", *arguments],
        cwd=folder,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()


@contextmanager
def served(collector: Collector) -> Iterator[int]:
    port = free_port()
    app = Starlette(routes=[Scrapes(lambda: exposition(collector)).route])
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(30)


def test_promtool_accepts_the_rules_and_they_fire_when_they_should(tmp_path: Path) -> None:
    shutil.copy(ALERTS, tmp_path)
    shutil.copy(Path(__file__).with_name("alerts_test.yaml"), tmp_path)
    assert "SUCCESS" in promtool("check", "rules", ALERTS.name, folder=tmp_path)
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yaml", folder=tmp_path)


def test_promtool_finds_nothing_to_blame_in_the_metrics(tmp_path: Path) -> None:
    text = exposition(Growing())
    assert not promtool("check", "metrics", stdin=text, folder=tmp_path).strip()


def test_prometheus_scrapes_them_and_answers_every_query(tmp_path: Path) -> None:
    shutil.copy(ALERTS, tmp_path)
    collector = Growing()
    with served(collector) as port:
        configuration = (
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            "rule_files: [alerts.yaml]\n"
            "scrape_configs:\n"
            f"  - {{job_name: p, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n"
        )
        with prometheus(tmp_path, configuration) as address:
            wait_until(lambda: collector.scrapes > 5, SCRAPES_TIMEOUT_S, "five scrapes")
            # The last of them must have been stored.
            time.sleep(1)
            assert query(address, "up")[0]["value"][1] == "1"
            empty = {text for _, text in queries() if not query(address, text)}
            # Alerts that do not fire answer nothing.
            assert all(any(sign in text for sign in (">", "==", "absent")) for text in empty)
            assert not query(address, "ALERTS{alertstate='firing'}")
