"""The places where renditions were written, according to Dagster's history."""

import json

import dagster as dg
import pytest

from resize_pipeline.commands.removed_renditions import Place, written_places
from resize_pipeline.renditions.file import load_renditions
from tests.dagster.fakes import NOW
from tests.dagster.project import Project
from tests.support.names import NAMES

HOUR = NOW.strftime("%Y-%m-%d-%H:00")
LARGE = Place("large", "large-bucket", "")
SMALL = Place("small", "small-bucket", "thumbnails/")


def configure(project: Project, *places: Place) -> None:
    lines = [
        f"  {one.rendition}: "
        f"{{width: 9, height: 9, bucket: {one.bucket}, prefix: {json.dumps(one.prefix)}}}\n"
        for one in places
    ]
    project.configure(renditions="renditions:\n" + "".join(lines))


def places(project: Project) -> set[Place]:
    settings = project.settings
    renditions = load_renditions(settings.renditions_file, settings.source_bucket)
    return written_places(project.instance, NAMES, renditions).ours


@pytest.mark.parametrize("job_name", ["resize_images_job", "__ASSET_JOB"])
def test_a_rendition_that_was_taken_out(project: Project, job_name: str) -> None:
    project.run(partition=HOUR, job_name=job_name, selection=["large", "small"])
    assert places(project) == set()
    configure(project, LARGE)
    assert places(project) == {SMALL}


@pytest.mark.parametrize(
    "moved",
    [
        Place("small", "small-bucket", "Thumbnails/"),
        Place("small", "other-bucket", "thumbnails/"),
        Place("small", "small-bucket", ""),
        Place("small", "small-bucket", "thumbnails/ü'\""),
    ],
)
def test_a_rendition_that_was_moved(project: Project, moved: Place) -> None:
    project.run(partition=HOUR)
    configure(project, LARGE, moved)
    assert places(project) == {SMALL}
    project.run(partition=HOUR)
    # The newest materialization of its partition is in its place now.
    assert places(project) == set()
    configure(project, LARGE)
    assert places(project) == {moved}


OURS = {"uri": "s3://their-bucket/", "images": 1, "rendition bytes": 1}


def run_theirs(project: Project, job_name: str | None, **metadata: object) -> None:
    @dg.asset
    def theirs() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata=metadata)

    jobs = [dg.define_asset_job(job_name, [theirs])] if job_name else []
    definitions = dg.Definitions(assets=[theirs], jobs=jobs)
    job = definitions.get_job_def(job_name or "__ASSET_JOB")
    assert job.execute_in_process(instance=project.instance).success


def test_assets_of_other_projects_are_never_ours(project: Project) -> None:
    for job_name, metadata in (
        ("their_job", OURS),
        (None, {"uri": OURS["uri"], "rendition bytes": 1}),
        (None, {**OURS, "uri": "their-bucket/key"}),
        (None, {**OURS, "uri": "s3://their-bucket"}),
        (None, {**OURS, "uri": "s3://No_Bucket/"}),
    ):
        run_theirs(project, job_name, **metadata)
        assert places(project) == set()
    # It is what these runs said that kept them out.
    run_theirs(project, None, **OURS)
    assert places(project) == {Place("theirs", "their-bucket", "")}


def test_what_was_left_is_found_after_the_asset_was_wiped(project: Project) -> None:
    project.run(partition=HOUR)
    configure(project, LARGE)
    project.instance.wipe_assets([dg.AssetKey("small")])
    assert places(project) == {SMALL}


def test_many_partitions_are_read_some_at_a_time(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resize_pipeline.instance.event_log.PARAMETERS_MAX", 1)
    project.run(partition=HOUR)
    configure(project, Place("other", "other-bucket", ""))
    assert places(project) == {LARGE, SMALL}
