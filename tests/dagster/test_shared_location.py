"""Several pipelines in one code location that belongs to somebody else."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from resize_pipeline.defs.pipeline import SecretVariables, build_pipeline
from tests.dagster.fakes import NOW, RENDITIONS, fake_settings
from tests.dagster.project import Project
from tests.support.pictures import detailed, encoded

HOUR = NOW.strftime("%Y-%m-%d-%H:00")
PNG = encoded(detailed(200, 100), "PNG")


class ForeignIOManager(dg.ConfigurableIOManager):
    """Of the other project; it knows nothing of pictures."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        # Of a check that finds nothing wrong.
        assert obj is None, context.step_key

    def load_input(self, context: dg.InputContext) -> Any:
        raise AssertionError(context.step_key)


def pipeline(folder: Path, name: str) -> Project:
    folder.mkdir()
    instance = dg.DagsterInstance.ephemeral(tempdir=str(folder))
    settings = fake_settings(
        folder,
        RENDITIONS.replace("-bucket", f"-of-{name}"),
        pipeline_name=name,
        source_bucket="images",
        catalog_bucket="",
        webhook_url="http://127.0.0.1:9/hook",
    )
    return Project(instance, folder, settings)


def definitions_of(project: Project) -> dg.Definitions:
    resources = {"kafka": project.kafka, "minio": project.minio}
    return build_pipeline(project.settings, SecretVariables(), resources=resources)


@pytest.fixture
def photos(tmp_path: Path) -> Project:
    return pipeline(tmp_path / "photos", "photos")


@pytest.fixture
def scans(tmp_path: Path) -> Project:
    return pipeline(tmp_path / "scans", "scans")


def foreign(*projects: Project) -> dg.Definitions:
    """The location of somebody who has assets, resources and an IO manager of his own."""

    @dg.asset
    def raw_images(kafka: dg.ResourceParam[str]) -> None:
        del kafka

    @dg.job
    def renditions() -> None:
        pass

    own = dg.Definitions(
        assets=[raw_images],
        jobs=[renditions],
        resources={"kafka": "his", "minio": "his", "io_manager": ForeignIOManager()},
        executor=dg.multiprocess_executor,
    )
    return dg.Definitions.merge(own, *map(definitions_of, projects))


def test_nothing_of_two_pipelines_collides(photos: Project, scans: Project) -> None:
    definitions = foreign(photos, scans)
    dg.Definitions.validate_loadable(definitions)
    repository = definitions.get_repository_def()
    repository.get_all_jobs()
    assert {photos.names.sensor, scans.names.sensor} <= {one.name for one in repository.sensor_defs}
    assert len(repository.job_names) == 1 + len(("photos", "scans")) * 3 + 1


def test_one_that_is_removed_leaves_the_other_as_it_was(photos: Project, scans: Project) -> None:
    def of_photos(definitions: dg.Definitions) -> set[str]:
        repository = definitions.get_repository_def()
        names = {*repository.job_names, *(one.name for one in repository.sensor_defs)}
        keys = repository.asset_graph.get_all_asset_keys()
        names |= {one.name for one in repository.schedule_defs}
        names |= {key.to_user_string() for key in keys}
        return {name for name in names if name.startswith("photos")}

    assert of_photos(foreign(photos, scans)) == of_photos(foreign(photos)) != set()


@pytest.mark.parametrize("job_name", ["photos_resize_images_job", "__ASSET_JOB"])
def test_each_job_uses_servers_of_its_own(photos: Project, scans: Project, job_name: str) -> None:
    photos.minio.put("a.png", PNG)
    definitions = foreign(photos, scans)
    selected = [photos.names.asset(name) for name in ("large", "small")]
    result = (
        definitions.get_repository_def()
        .get_job(job_name)
        .execute_in_process(instance=photos.instance, partition_key=HOUR, asset_selection=selected)
    )
    assert result.success
    assert ("large-of-photos", "a.png") in photos.minio.objects
    assert scans.minio.calls == []


def test_a_failed_run_of_somebody_else_is_none_of_ours(photos: Project) -> None:
    def run(job_name: str, *assets: dg.AssetKey) -> dg.DagsterRun:
        return dg.DagsterRun(job_name=job_name, asset_selection=frozenset(assets) or None)

    names = photos.names
    assert names.owns_run(run("photos_resize_images_job"))
    assert names.owns_run(run("__ASSET_JOB", names.asset("large")))
    assert not names.owns_run(run("photos_old_resize_images_job"))
    assert not names.owns_run(run("__ASSET_JOB", dg.AssetKey(["scans", "large"])))
