"""The catalogue over a real MinIO: one current row for each object, whatever happens."""

import io
import os
import random
import re
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from PIL import Image

from resize_pipeline.catalog.rows import Row
from resize_pipeline.catalog.table import CatalogTable, storage_options
from resize_pipeline.defs.jobs import run_config
from resize_pipeline.defs.sensors import minio_events as sensors
from resize_pipeline.errors import UserError
from resize_pipeline.renditions.facts import Facts
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.settings import Settings
from tests.conftest import ROOT_PASSWORD, ROOT_USER
from tests.integration.test_pipeline import Pipeline
from tests.support.catalog_writer import KEYS
from tests.support.pictures import detailed, encoded
from tests.support.project import REPOSITORY

pytestmark = pytest.mark.integration

ROUNDS = 2
COUNTS = (
    "pictures without a current row",
    "rows without an object",
    "rows with the key of another",
)

ONE = encoded(detailed(60, 40), "PNG")
TWO = encoded(detailed(80, 40), "JPEG")


@pytest.fixture
def pipeline(stack: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # A tick that finds nothing would wait for a message that nobody sends.
    monkeypatch.setattr(sensors, "LONG_POLL_S", 0.1)
    bucket = f"catalog-{os.urandom(4).hex()}"
    with dg.DagsterInstance.ephemeral() as instance:
        settings = stack.model_copy(update={"catalog_bucket": bucket})
        yield Pipeline(settings, tmp_path, instance)


def table(pipeline: Pipeline) -> CatalogTable:
    return CatalogTable(
        pipeline.minio_as_the_pipeline(),
        pipeline.settings.catalog_bucket,
        pipeline.settings.pipeline_name,
        pipeline.settings.source_bucket,
    )


def rows(pipeline: Pipeline) -> dict[str, Row]:
    """Return all rows by key; a key has one."""
    newest = table(pipeline).newest()
    keys = [state.key for state in newest.states()]
    assert len(keys) == len(set(keys))
    return newest.rows(keys)


def work_off(pipeline: Pipeline, events: int) -> None:
    """Wait for so many events in all, and run what the sensor asks for until nothing is left."""
    pipeline.wait_for_events(events)
    while requests := pipeline.tick().run_requests:
        for request in requests:
            pipeline.run(request)


def launch(
    pipeline: Pipeline, config: dict[str, Any], selection: list[str] | None = None
) -> dg.ExecuteInProcessResult:
    job = pipeline.definitions.get_job_def(pipeline.names.job)
    assert job.partitions_def
    return job.execute_in_process(
        instance=pipeline.instance,
        partition_key=job.partitions_def.get_last_partition_key(),
        run_config=run_config(pipeline.names, **config),
        asset_selection=[pipeline.names.asset(name) for name in selection] if selection else None,
    )


def agrees(pipeline: Pipeline) -> tuple[bool, dict[str, Any]]:
    """Return whether the check passes for the current hour, and its counts."""
    key = dg.AssetCheckKey(pipeline.names.catalog, "rows_agree")
    whole = pipeline.definitions.get_job_def(pipeline.names.checks_job)
    job = whole.get_subset(asset_check_selection={key})
    partitions = pipeline.definitions.get_job_def(pipeline.names.job).partitions_def
    assert partitions
    result = job.execute_in_process(
        instance=pipeline.instance, tags={"dagster/partition": partitions.get_last_partition_key()}
    )
    [one] = result.get_asset_check_evaluations()
    counts = {name: value.value for name, value in one.metadata.items() if name != "first keys"}
    return one.passed, counts


def test_a_row_follows_its_object(pipeline: Pipeline) -> None:
    pipeline.put("a'b/é.png", ONE)
    pipeline.put("broken.jpg", b"no picture")
    work_off(pipeline, 2)
    found = rows(pipeline)
    one, broken = found["a'b/é.png"], found["broken.jpg"]
    assert (one.status, one.bytes, one.version) == ("rendered", len(ONE), None)
    assert one.facts == Facts(
        width=60, height=40, format="PNG", mode="RGB", frames=1, orientation=1
    )
    large, small = one.renditions
    stored = pipeline.root.stat_object(pipeline.large, "a'b/é.png")
    assert large.uri == f"s3://{pipeline.large}/a'b/é.png"
    assert large.bytes == stored.size
    assert (stored.metadata or {})["x-amz-meta-spec-digest"] == large.digest
    assert small.uri == f"s3://{pipeline.small}/thumbs/a'b/é.png"
    assert broken.status == "rejected"
    assert broken.error_class == "PermanentError"
    assert "not a picture" in (broken.reason or "")
    assert agrees(pipeline) == (True, dict.fromkeys(COUNTS, 0))

    pipeline.put("a'b/é.png", TWO)
    pipeline.root.remove_object(pipeline.settings.source_bucket, "broken.jpg")
    work_off(pipeline, 4)
    found = rows(pipeline)
    two = found["a'b/é.png"]
    assert two.facts
    assert (two.facts.width, two.facts.format) == (80, "JPEG")
    assert two.etag != one.etag
    assert two.run != one.run
    assert found["broken.jpg"].status == "missing"
    assert agrees(pipeline)[0]


def test_reconciliation_repairs_the_catalogue(pipeline: Pipeline) -> None:
    catalog_bucket = pipeline.settings.catalog_bucket
    pipeline.configure(catalog_bucket="")
    for name in ("a.png", "b.png", "c.png"):
        pipeline.put(name, ONE)
    pipeline.put("d.png", b"no picture")
    work_off(pipeline, 4)

    pipeline.configure(catalog_bucket=catalog_bucket)
    assert agrees(pipeline) == (False, {**dict.fromkeys(COUNTS, 0), COUNTS[0]: 4})
    launch(pipeline, {"reconcile": True})
    found = rows(pipeline)
    assert [one.status for one in found.values()] == ["rendered"] * 3 + ["rejected"]
    assert found["a.png"].facts
    assert len(found["a.png"].renditions) == 2
    assert agrees(pipeline)[0]

    # Events of a removal and of an overwriting that got lost.
    pipeline.root.remove_object(pipeline.settings.source_bucket, "b.png")
    pipeline.put("c.png", TWO)
    assert agrees(pipeline) == (False, {**dict.fromkeys(COUNTS, 0), COUNTS[0]: 1, COUNTS[1]: 1})
    launch(pipeline, {"reconcile": True})
    assert rows(pipeline)["b.png"].status == "missing"
    assert agrees(pipeline)[0]
    version = table(pipeline).newest().table.version()
    launch(pipeline, {"reconcile": True})
    assert table(pipeline).newest().table.version() == version


def test_analyses_are_columns_and_are_made_up_for(pipeline: Pipeline) -> None:
    pipeline.put("a.png", ONE)
    pipeline.put("b.jpg", TWO)
    pipeline.put("c.png", b"no picture")
    work_off(pipeline, 3)

    def times() -> dict[str | None, object]:
        listed = pipeline.root.list_objects(pipeline.large)
        return {one.object_name: one.last_modified for one in listed}

    made = times()
    specs = pipeline.settings.renditions_file
    without = specs.read_text()

    def select(columns: str) -> list[tuple[Any, ...]]:
        catalog = table(pipeline).newest().table.scan()
        assert catalog
        return duckdb.sql(f"select key, {columns} from catalog order by key").fetchall()  # noqa: S608

    specs.write_text(f"{without}analyses: {{entropy: , dominant_colours: }}\n")
    pipeline.configure()
    assert agrees(pipeline) == (False, {**dict.fromkeys(COUNTS, 0), COUNTS[0]: 2})
    launch(pipeline, {"reconcile": True})
    assert agrees(pipeline)[0]
    first, second, third = select("entropy, dominant_colours, analyses")
    assert first[1] > 0
    assert second[2][0].startswith("#")
    assert [one["name"] for one in first[3]] == ["entropy", "dominant_colours"]
    assert third[1:3] == (None, None)
    assert times() == made, "no rendition was made again"

    own = "function: tests.support.own_functions:redness, version: 1, columns: {redness: number}"
    bad = "function: tests.support.own_functions:raises, version: 1, columns: {value: text}"
    wider = own.replace("}", ", seen: text}")
    specs.write_text(
        f"{without}analyses: {{entropy: , perceptual_hash: , own: {{{wider}}}, bad: {{{bad}}}}}\n"
    )
    pipeline.configure()
    launch(pipeline, {"reconcile": True})
    pipeline.put("d.png", TWO)
    work_off(pipeline, 4)
    assert agrees(pipeline)[0]
    found = {key: values for key, *values in select("entropy, perceptual_hash, dominant_colours")}
    mine = {key: values for key, *values in select("redness, seen, value, analyses")}
    assert mine["a.png"][:3] == [mine["a.png"][0], "RGB (60, 40)", None]
    assert mine["c.png"][:3] == [None, None, None]
    *_, failed = mine["d.png"][3]
    assert (failed["name"], failed["error"][:20]) == ("bad", "ValueError: no model")
    assert found["a.png"][0] == first[1]
    assert len(found["d.png"][1]) == 64
    assert found["b.jpg"][1] == found["d.png"][1], "the same picture"
    assert found["d.png"][2] is None


def test_near_duplicates_are_a_table_beside_it(pipeline: Pipeline) -> None:
    specs = pipeline.settings.renditions_file
    specs.write_text(f"{specs.read_text()}analyses: {{perceptual_hash: }}\n")
    pipeline.configure()
    photo = detailed(300, 200)
    pipeline.put("a.png", encoded(photo, "PNG"))
    pipeline.put("b.jpg", encoded(photo.resize((150, 100)), "JPEG"))
    pipeline.put("c.png", encoded(photo.transpose(Image.Transpose.ROTATE_180), "PNG"))
    launch(pipeline, {"objects": ["a.png", "b.jpg", "c.png"]})
    job = pipeline.definitions.get_job_def(pipeline.names.of("near_duplicates_job"))
    result = job.execute_in_process(instance=pipeline.instance)
    [made] = result.asset_materializations_for_node(job.nodes[0].name)
    counts = {name: made.metadata[name].value for name in ("images", "near-duplicates", "groups")}
    assert counts == {"images": 3, "near-duplicates": 2, "groups": 1}

    page = (REPOSITORY / "docs" / "catalog.md").read_text()
    [program] = [
        one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "near-dupl" in one
    ]
    text = program.replace("s3://catalog/resize-pipeline", table(pipeline).uri)
    with redirect_stdout(io.StringIO()) as said:
        exec(text, {"storage_options": storage_options(pipeline.minio_as_the_pipeline())})  # noqa: S102
    assert "a.png" in said.getvalue()
    assert "b.jpg" in said.getvalue()
    assert "c.png" not in said.getvalue()


def test_writers_that_are_killed_leave_one_row_for_each_key(stack: Settings) -> None:
    bucket = f"catalog-{os.urandom(4).hex()}"
    minio = MinioResource.from_settings(stack, access_key=ROOT_USER, secret_key=ROOT_PASSWORD)
    minio.client.make_bucket(bucket)
    catalog = CatalogTable(minio, bucket, "pipeline", "source")
    versions = []
    for _ in range(ROUNDS):
        writers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.catalog_writer", name, bucket, "source"],
                cwd=REPOSITORY,
                env=os.environ | stack.to_environment(),
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in ("one", "two")
        ]
        try:
            for writer in writers:
                assert writer.stdout
                assert writer.stdout.readline() == "committed\n"
            time.sleep(random.uniform(0, 0.3))  # noqa: S311
        finally:
            for writer in writers:
                writer.kill()
                writer.communicate()
        newest = catalog.newest()
        assert [state.key for state in newest.states()] == sorted(KEYS)
        # One commit is whole: a writer gives all its rows one etag.
        assert len({one.etag for one in newest.rows(KEYS).values()}) == 1
        versions.append(newest.table.version())
    assert versions == sorted(set(versions))


def test_maintenance_joins_files_and_keeps_rows(pipeline: Pipeline) -> None:
    for name in ("a.png", "b.png"):
        pipeline.put(name, ONE)
        launch(pipeline, {"objects": [name]})
    before = rows(pipeline)
    job = pipeline.definitions.get_job_def(pipeline.names.of("maintain_catalog_job"))
    assert job.execute_in_process(instance=pipeline.instance).success
    assert len(table(pipeline).newest().table.file_uris()) == 1
    assert rows(pipeline) == before


def test_a_run_of_the_catalogue_alone_makes_the_renditions(pipeline: Pipeline) -> None:
    pipeline.put("a.png", ONE)
    assert launch(pipeline, {"objects": ["a.png"]}, ["catalog"]).success
    assert len(rows(pipeline)["a.png"].renditions) == 2
    # A run of one rendition leaves what the row says of the other.
    pipeline.put("a.png", TWO)
    assert launch(pipeline, {"objects": ["a.png"]}, ["large"]).success
    assert [one.name for one in rows(pipeline)["a.png"].renditions] == ["large"]
    assert launch(pipeline, {"objects": ["a.png"]}, ["small"]).success
    assert [one.name for one in rows(pipeline)["a.png"].renditions] == ["large", "small"]


def test_the_lines_of_the_documentation_read_it(pipeline: Pipeline) -> None:
    pipeline.put("a.png", ONE)
    pipeline.put("b.png", b"no picture")
    launch(pipeline, {"objects": ["a.png", "b.png"]})
    page = (REPOSITORY / "docs" / "catalog.md").read_text()
    options, *programs = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert "storage_options = {" in options
    for program in (one for one in programs if "near-duplicates" not in one):
        text = program.replace("s3://catalog/resize-pipeline", table(pipeline).uri)
        known = {"storage_options": storage_options(pipeline.minio_as_the_pipeline())}
        with redirect_stdout(io.StringIO()) as said:
            exec(text, known)  # noqa: S102  The documentation's own lines.
        assert said.getvalue().strip()
    [questions] = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    answers = []
    for question in filter(str.strip, questions.split(";")):
        catalog = table(pipeline).newest().table.scan()  # noqa: F841  DuckDB finds it by its name.
        answers.append(duckdb.sql(question).fetchall())
    failed, cameras, large, thumbnails, saved = answers
    assert [key for key, *_ in failed] == ["b.png"]
    assert cameras == [(None, None, 1)]
    assert (large, thumbnails) == ([], [])
    assert {name for name, _ in saved} == {"large", "small"}


def test_a_bucket_that_is_missing_is_named(pipeline: Pipeline) -> None:
    pipeline.root.remove_bucket(pipeline.settings.catalog_bucket)
    with pytest.raises(UserError, match=pipeline.settings.catalog_bucket):
        table(pipeline).newest()
