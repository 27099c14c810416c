"""Slow pictures are postponed, and rendered by runs of their own, one at a time."""

from collections.abc import Sequence

import dagster as dg
import pytest
from dagster._core.storage.tags import BACKFILL_ID_TAG, PARTITION_NAME_TAG

from resize_pipeline.definitions import build_definitions
from resize_pipeline.defs.names import LANE_TAG, POSTPONED_TAG, SLOW
from resize_pipeline.defs.sensors.slow_lane import waiting_runs
from resize_pipeline.defs.slow_lane import Postponed, postponed_by
from resize_pipeline.renditions.objects import Rendered
from resize_pipeline.renditions.spec import Rendition
from tests.dagster.fakes import NOW, InProcessRenderer, event
from tests.dagster.project import Project, materialized, observed
from tests.support.names import NAMES
from tests.support.pictures import detailed, encoded

THIS_HOUR = NOW.strftime("%Y-%m-%d-%H:00")
PNG = encoded(detailed(200, 100), "PNG")
BOMB = encoded(detailed(210, 100), "PNG")
JUNK = b"junk"


@pytest.fixture
def project(project: Project) -> Project:
    project.slow = {BOMB, JUNK}
    return project


class Lane:
    """The sensor of the slow lane, with its cursor."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.cursor: str | None = None

    def tick(self) -> Sequence[dg.RunRequest]:
        repository = self.project.definitions.get_repository_def()
        name = self.project.names.of("slow_lane_sensor")
        context = dg.build_sensor_context(
            instance=self.project.instance,
            repository_def=repository,
            sensor_name=name,
            cursor=self.cursor,
        )
        answer = repository.get_sensor_def(name).evaluate_tick(context)
        self.cursor = answer.cursor or self.cursor
        return answer.run_requests or []

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        tags = dict(request.tags)
        return self.project.run(
            partition=tags.pop(PARTITION_NAME_TAG),
            config=request.run_config["ops"]["renditions"]["ops"]["plan"]["config"],
            tags=tags,
        )


def put(project: Project, **pictures: bytes) -> None:
    for name, data in pictures.items():
        project.minio.put(f"{name}.png", data)
        project.kafka.produce(event(f"{name}.png"))


def small(project: Project) -> list[str]:
    return project.minio.keys("small-bucket")


def test_a_slow_picture_is_left_to_a_run_of_its_own(project: Project) -> None:
    put(project, bomb=BOMB, good=PNG)
    [request] = project.tick().run_requests
    first = project.run(request)
    assert small(project) == ["thumbnails/good.png"]
    assert materialized(first)["large"]["postponed"] == 1
    lane = Lane(project)
    [slow] = lane.tick()
    assert (slow.tags[LANE_TAG], slow.tags[PARTITION_NAME_TAG]) == (SLOW, THIS_HOUR)
    second = lane.run(slow)
    assert small(project) == ["thumbnails/bomb.png", "thumbnails/good.png"]
    assert materialized(second)["large"]["images"] == 1
    assert POSTPONED_TAG not in second.dagster_run.tags
    assert lane.tick() == []
    assert project.kafka.letters == []


def test_its_run_says_how_many_and_names_them(project: Project) -> None:
    put(project, bomb=BOMB, other=BOMB, good=PNG)
    result = project.run(project.tick().run_requests[0])
    run = project.instance.get_run_by_id(result.run_id)
    assert run
    assert run.tags[POSTPONED_TAG] == "2"
    found = list(postponed_by(project.instance, result.run_id))
    assert found == [Postponed(name, had_dead_letter=False) for name in ("bomb.png", "other.png")]
    assert [
        one.dagster_run.run_id for one in waiting_runs(project.instance, NAMES, None, limit=9)
    ] == [result.run_id]


@pytest.mark.parametrize("config", [{"objects": ["bomb.png"]}, {"prefix": "b"}, {}])
def test_however_the_run_found_it(project: Project, config: dict) -> None:
    project.minio.put("bomb.png", BOMB)
    project.run(partition=THIS_HOUR, config=config, tags={BACKFILL_ID_TAG: "backfill"})
    lane = Lane(project)
    [slow] = lane.tick()
    # Its other runs would come first.
    assert BACKFILL_ID_TAG not in slow.tags
    lane.run(slow)
    assert small(project) == ["thumbnails/bomb.png"]


def test_what_is_forced_stays_forced(project: Project) -> None:
    project.minio.put("bomb.png", BOMB)
    lane = Lane(project)
    for _ in range(2):
        project.run(partition=THIS_HOUR, config={"objects": ["bomb.png"], "force": True})
        project.minio.calls.clear()
        lane.run(lane.tick()[0])
        assert ("small-bucket", "thumbnails/bomb.png") in project.minio.written()


def test_what_was_removed_meanwhile_is_missing(project: Project) -> None:
    put(project, bomb=BOMB)
    project.run(project.tick().run_requests[0])
    project.minio.delete("bomb.png")
    lane = Lane(project)
    assert materialized(lane.run(lane.tick()[0]))["large"]["missing"] == 1


def test_a_run_takes_a_batch_and_the_rest_goes_behind_those_that_wait(project: Project) -> None:
    project.configure(batch_max_objects=2)
    put(project, a=BOMB, b=BOMB, c=BOMB)
    project.run(project.tick().run_requests[0])
    put(project, d=BOMB)
    project.run(project.tick().run_requests[0])
    lane = Lane(project)
    made = []
    while requests := lane.tick():
        lane.run(requests[0])
        made.append(len(small(project)))
    assert made == [2, 3, 4]


def test_what_the_lane_has_rejected_is_not_tried_again_by_it(project: Project) -> None:
    """Reconciliation, too, postpones whatever still waits."""
    project.minio.put("junk.png", JUNK)
    for _ in range(2):
        project.run(partition=THIS_HOUR, config={"reconcile": True})
    lane = Lane(project)
    lane.run(lane.tick()[0])
    assert len(project.kafka.letters) == 1
    second = lane.run(lane.tick()[0])
    assert observed(second)["objects"] == 0
    assert observed(second)["objects answered by a dead letter"] == 1
    assert len(project.kafka.letters) == 1


def test_what_somebody_wants_to_be_tried_again_is(project: Project) -> None:
    project.minio.put("junk.png", JUNK)
    lane = Lane(project)
    for count in (1, 2):
        project.run(partition=THIS_HOUR, config={"objects": ["junk.png"]})
        lane.run(lane.tick()[0])
        assert len(project.kafka.letters) == count


def test_runs_of_the_lane_are_requested_one_at_a_time(project: Project) -> None:
    for name in ("a", "b"):
        put(project, **{name: BOMB})
        project.run(project.tick().run_requests[0])
    lane = Lane(project)
    [slow] = lane.tick()
    job = project.definitions.get_job_def("resize_images_job")
    unfinished = project.instance.create_run_for_job(job, tags=dict(slow.tags))
    assert lane.tick() == []
    project.instance.report_run_failed(unfinished)
    assert len(lane.tick()) == 1


def test_a_run_that_was_deleted_has_postponed_nothing(project: Project) -> None:
    assert list(postponed_by(project.instance, "gone")) == []


def test_renditions_that_exceed_the_memory_of_a_batch_are_uploaded_at_once(
    project: Project,
) -> None:
    in_memory: list[int] = []

    class Growing(InProcessRenderer):
        def render(
            self, data: bytes, renditions: Sequence[Rendition], *_: object
        ) -> list[Rendered]:
            del data
            uploads = sum(name == "upload" for name, _, _ in project.minio.calls)
            in_memory.append(len(in_memory) - uploads // len(renditions))
            return [
                Rendered(one.name, bytes(10_000), 10, 10, "PNG", "image/png") for one in renditions
            ]

    project.configure(batch_max_bytes=25_000)
    for index in range(5):
        project.minio.put(f"{index}.png", b"original")
    growing = Growing(workers=1)
    job = build_definitions(
        project.settings,
        resources={"kafka": project.kafka, "minio": project.minio, "renderer": growing},
    ).get_job_def("resize_images_job")
    result = job.execute_in_process(instance=project.instance, partition_key=THIS_HOUR)
    assert materialized(result)["large"]["images"] == 5
    assert materialized(result)["large"]["rendition bytes"] == 50_000
    assert max(in_memory) == 1
