"""Two pipelines in one Dagster instance, which must not take each other's runs for their own."""

from pathlib import Path

import pytest

from resize_pipeline.commands.removed_renditions import Place, removed_renditions, written_places
from resize_pipeline.defs.code_versions import stale_partitions, unmade_partitions
from resize_pipeline.defs.gaps import recorded_gaps
from resize_pipeline.defs.sensors.slow_lane import waiting_runs
from resize_pipeline.kafka.offsets import OffsetRange
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.renditions.spec import Rendition
from tests.dagster.fakes import NOW, RENDITIONS, SOURCE, event, fake_settings
from tests.dagster.project import Project
from tests.support.pictures import detailed, encoded

HOUR = NOW.strftime("%Y-%m-%d-%H:00")
PNG = encoded(detailed(200, 100), "PNG")
SLOW = encoded(detailed(210, 100), "PNG")
OWN = RENDITIONS.replace("-bucket", "-of-photos")


@pytest.fixture
def photos(project: Project, tmp_path: Path) -> Project:
    """A second pipeline in the instance of the first."""
    folder = tmp_path / "photos"
    folder.mkdir()
    settings = fake_settings(folder, OWN, pipeline_name="photos-2026")
    return Project(project.instance, folder, settings, slow={SLOW})


def renditions(project: Project) -> tuple[Rendition, ...]:
    return load_renditions(project.settings.renditions_file, SOURCE)


def removed(project: Project) -> set[Place]:
    specs = renditions(project)
    places = written_places(project.instance, project.names, specs)
    return {one.place for one in removed_renditions(places, specs, SOURCE)}


def make(project: Project, *keys: str) -> None:
    for key in keys:
        project.minio.put(key, SLOW if key.startswith("slow") else PNG)
        project.kafka.produce(event(key))
    for request in project.tick().run_requests or []:
        project.run(request)


def test_each_definition_of_the_second_has_its_name(photos: Project) -> None:
    repository = photos.definitions.get_repository_def()
    named = [
        *(one.name for one in repository.sensor_defs),
        *(one.name for one in repository.schedule_defs),
        *(name for name in repository.job_names if not name.startswith("__")),
    ]
    assert len(named) >= 9
    assert [one for one in named if not one.startswith("photos_2026_")] == []
    keys = {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()}
    assert keys == {f"photos_2026/{name}" for name in ("raw_images", "large", "small")}


def test_renditions_of_the_other_are_not_removed_ones(project: Project, photos: Project) -> None:
    make(project, "a.png")
    make(photos, "b.png")
    assert removed(project) == removed(photos) == set()
    photos.configure(renditions=OWN.replace("small-of", "tiny-of"), pipeline_name="photos-2026")
    assert removed(photos) == {Place("small", "small-of-photos", "thumbnails/")}
    assert removed(project) == set()


def test_a_place_that_the_other_writes_to_is_never_a_removed_one(
    project: Project, photos: Project
) -> None:
    make(project, "a.png")
    photos.configure(renditions=RENDITIONS, pipeline_name="photos-2026")
    make(photos, "b.png")
    project.configure(renditions=RENDITIONS.replace("small-bucket", "other-bucket"))
    assert removed(project) == set()


def test_slow_pictures_wait_in_their_own_lane(project: Project, photos: Project) -> None:
    make(photos, "slow.png", "b.png")
    instance = project.instance
    assert len(waiting_runs(instance, photos.names, None, limit=9)) == 1
    assert waiting_runs(instance, project.names, None, limit=9) == []


def test_a_change_of_specs_concerns_one(project: Project, photos: Project) -> None:
    make(project, "a.png")
    make(photos, "b.png")
    photos.configure(renditions=OWN.replace("width: 20", "width: 30"), pipeline_name="photos-2026")
    for one, expected in ((project, []), (photos, [HOUR])):
        [small] = [spec for spec in renditions(one) if spec.name == "small"]
        assert list(stale_partitions(one.instance, one.names, small)) == expected
        assert not any(unmade_partitions(one.instance, one.names, renditions(one)).values())


def test_gaps_belong_to_one(project: Project, photos: Project) -> None:
    make(photos, "b.png")
    lost = OffsetRange(partition=0, start=50, end=60)
    photos.run(partition=HOUR, config={"offset_ranges": [str(lost)]})
    assert recorded_gaps(project.instance, project.names) == []
    assert len(recorded_gaps(photos.instance, photos.names)) == 1
