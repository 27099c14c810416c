"""The dashboard, the alerts and docs/metrics.md name the metrics that there are, and only those."""

import datetime as dt
import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.metrics_core import Metric

from resize_pipeline.errors import LETTER_CLASSES
from resize_pipeline.kafka.offsets import TopicState
from resize_pipeline.monitoring.runs import FailedRuns, InstanceFacts, SlowLaneStatus
from resize_pipeline.monitoring.samples import Reading, families
from resize_pipeline.monitoring.servers import KafkaFacts, Letters, MinioFacts, PartitionStatus

REPOSITORY = Path(__file__).parents[2]
DOC = (REPOSITORY / "docs" / "metrics.md").read_text()
ALERTS = yaml.safe_load((REPOSITORY / "deploy" / "monitoring" / "alerts.yaml").read_text())
RULES = ALERTS["groups"][0]["rules"]
DASHBOARD = json.loads(
    (REPOSITORY / "deploy" / "monitoring" / "grafana-dashboard.json").read_text()
)
READING = Reading(
    up={"kafka": True, "minio": True, "dagster": True},
    kafka=KafkaFacts(TopicState("topic", "id", {0: (0, 2)}), Letters(0, {}, is_exact=True)),
    partitions=[PartitionStatus(partition=0, next_offset=0, end_offset=2, lag=2)],
    oldest_age_s=1.0,
    minio=MinioFacts(),
    instance=InstanceFacts(
        heartbeat=dt.datetime.now(dt.UTC),
        unfinished=0,
        failed=FailedRuns([], set()),
        slow_lane=SlowLaneStatus(pictures=0, runs=0, rendering=False),
        gaps=[],
    ),
    totals={},
)
METRICS: dict[str, Metric] = {one.name: one for one in families("p", READING)}


def samples() -> dict[str, set[str]]:
    """The names of all samples with those of their labels."""
    return {sample.name: set(sample.labels) for one in METRICS.values() for sample in one.samples}


def queries() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            # Grafana replaces its variables before Prometheus sees a query.
            text = target["expr"].replace("$__rate_interval", "1m").replace("$pipeline", ".*")
            yield panel["title"], text
    for variable in DASHBOARD["templating"]["list"]:
        if found := re.fullmatch(r"label_values\((\w+), \w+\)", variable.get("definition", "")):
            yield variable["name"], found[1]


def selectors(node: Any) -> Iterator[promql_parser.VectorSelector]:
    """Yield the selectors of a parsed query, wherever they are."""
    match node:
        case promql_parser.VectorSelector():
            yield node
        case promql_parser.MatrixSelector():
            yield node.vector_selector
        case promql_parser.Call():
            for one in node.args:
                yield from selectors(one)
        case promql_parser.BinaryExpr():
            yield from selectors(node.lhs)
            yield from selectors(node.rhs)
        case promql_parser.AggregateExpr() | promql_parser.ParenExpr():
            yield from selectors(node.expr)
        case _:
            assert isinstance(node, promql_parser.NumberLiteral), node


@pytest.mark.parametrize(("where", "query"), list(queries()))
def test_queries_name_metrics_and_labels_that_exist(where: str, query: str) -> None:
    known = samples()
    found = list(selectors(promql_parser.parse(query)))
    assert found, where
    for one in found:
        assert one.name in known
        assert {matcher.name for matcher in one.matchers.matchers} <= known[one.name]


def test_the_dashboard_shows_every_metric() -> None:
    shown = {one.name for _, query in queries() for one in selectors(promql_parser.parse(query))}
    left = {
        name
        for name, metric in METRICS.items()
        if not any(sample.name in shown for sample in metric.samples)
    }
    # `daemon_up` says the same.
    assert left == {"resize_pipeline_daemon_heartbeat_timestamp_seconds"}


def test_the_dashboard_has_panels_that_do_not_overlap() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert [panel["id"] for panel in DASHBOARD["panels"]] == [
        one for one, _ in zip(count(1), DASHBOARD["panels"], strict=False)
    ]


def test_the_page_lists_every_metric_with_its_type_and_labels() -> None:
    rows = re.findall(
        r"^\| `(resize_pipeline_\w+)` \| (\w+), [^|]+ \| ([^|]*)\|", DOC, re.MULTILINE
    )
    listed = {name: (kind, set(re.findall(r"`(\w+)`:", labels))) for name, kind, labels in rows}
    expected = {}
    for metric in METRICS.values():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        labels = {label for sample in metric.samples for label in sample.labels}
        expected[name] = (metric.type, labels - {"pipeline", "le"})
    assert listed == expected
    assert f"`class`: {', '.join(sorted(LETTER_CLASSES - {'Malformed'}))}, Malformed, other" in DOC


def test_the_page_lists_every_alert() -> None:
    listed = re.findall(r"^\| `(ResizePipeline\w+)` \|", DOC, re.MULTILINE)
    assert listed == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description"}


def test_metrics_have_units_of_their_kind() -> None:
    for name, metric in METRICS.items():
        assert metric.documentation.endswith(".")
        assert not name.endswith("_total"), "the client adds it"
        if metric.type == "histogram":
            assert name.endswith("_seconds")
