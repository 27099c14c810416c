"""The component by the `dg` command, in a project of somebody else."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.foreign_project import ForeignProject

SERVERS = {
    "MINIO_ENDPOINT": "http://127.0.0.1:9",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
}


def definitions(project: ForeignProject) -> dict[str, list[dict[str, Any]]]:
    printed = project.run("dg", "list", "defs", "--json")
    return json.loads(printed[printed.index("{") :])


def of(name: str, found: dict[str, list[dict[str, Any]]]) -> set[str]:
    return {text for one in found.values() for text in map(json.dumps, one) if name in text}


# One test, for each command takes seconds, and each needs what the one before has made.
def test_two_are_scaffolded_checked_listed_and_one_removed(tmp_path: Path) -> None:
    project = ForeignProject(tmp_path, SERVERS)
    for name in ("photos", "scans"):
        project.run("dg", "scaffold", "defs", "resize_pipeline.ImageRenditions", name)
    listed = project.run("dg", "list", "components", "--package", "resize_pipeline")
    assert "resize_pipeline.ImageRenditions" in listed
    assert "Resized renditions of every image" in listed
    assert "validated successfully" in project.run("dg", "check", "yaml")

    both = definitions(project)
    sensors = {one["name"] for one in both["sensors"]}
    assert {"photos_minio_events_sensor", "scans_minio_events_sensor"} <= sensors
    project.remove("scans")
    alone = definitions(project)
    assert of("photos", alone) == of("photos", both) != set()
    assert not of("scans", alone)

    file = project.defs_yaml("photos")
    text = file.read_text()
    file.write_text(text.replace("source_bucket:", "bucket:"))
    with pytest.raises(AssertionError, match=r"source_bucket.*required"):
        project.run("dg", "check", "yaml")
    file.write_text(text)
    (tmp_path / ".env").write_text("")
    with pytest.raises(AssertionError, match=r"env\.MINIO_ENDPOINT \}\} has no value"):
        project.run("dg", "check", "defs")
