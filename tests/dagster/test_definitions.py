"""The definitions as a code location loads them."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from resize_pipeline.definitions import build_definitions
from resize_pipeline.errors import UserError
from resize_pipeline.settings import Settings
from tests.dagster.fakes import fake_settings

REPOSITORY = Path(__file__).parents[2]
SECRETS = {
    "MINIO_ACCESS_KEY": "access-5e0c",
    "MINIO_SECRET_KEY": "secret-5e0c",
    "MINIO_ROOT_PASSWORD": "root-5e0c",
    "KAFKA_SASL_PASSWORD": "sasl-5e0c",
    "WEBHOOK_URL": "https://hooks.example.com/5e0c",
}


def built(folder: Path, **changes) -> dg.Definitions:
    return build_definitions(fake_settings(folder, **changes))


def test_names(tmp_path: Path) -> None:
    definitions = built(tmp_path)
    dg.Definitions.validate_loadable(definitions)
    keys = {key.to_user_string() for key in definitions.resolve_all_asset_keys()}
    assert keys == {"raw_images", "large", "small"}
    job = definitions.get_job_def("resize_images_job")
    assert {key.to_user_string() for key in job.asset_layer.selected_asset_keys} == {
        "large",
        "small",
    }
    assert not job.asset_layer.asset_graph.asset_check_keys, "they list whole buckets"
    checks = definitions.get_job_def("check_renditions_job")
    assert checks.asset_layer.asset_graph.asset_check_keys == {
        *(dg.AssetCheckKey(dg.AssetKey(name), "complete") for name in ("large", "small")),
        dg.AssetCheckKey(dg.AssetKey("raw_images"), "sensor_is_current"),
        dg.AssetCheckKey(dg.AssetKey("raw_images"), "events_arrive"),
    }
    repository = definitions.get_repository_def()
    for schedule in repository.schedule_defs:
        assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert {schedule.name: schedule.job_name for schedule in repository.schedule_defs} == {
        "reconciliation_schedule": "resize_images_job",
        "completeness_schedule": "check_renditions_job",
        "run_retention_schedule": "delete_finished_runs_job",
    }
    for sensor in repository.sensor_defs:
        assert sensor.job_name == "resize_images_job"
        assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    names = {sensor.name for sensor in repository.sensor_defs}
    assert names == {"minio_events_sensor", "follow_up_sensor", "slow_lane_sensor"}


def test_renditions_depend_on_the_source(tmp_path: Path) -> None:
    graph = built(tmp_path).get_repository_def().asset_graph
    for name in ("large", "small"):
        assert graph.get(dg.AssetKey(name)).parent_keys == {dg.AssetKey("raw_images")}
    assert not graph.get(dg.AssetKey("raw_images")).is_materializable


SPEC = """
renditions:
  one: {width: 30, height: 20, fit: cover, position: north, format: webp, bucket: one-bucket,
        metadata: [copyright], animation: first, cache_control: max-age=60}
  two: {width: 5, height: 5, bucket: two-bucket}
"""


def test_assets_say_whose_and_what_they_are(tmp_path: Path) -> None:
    definitions = built(
        tmp_path, renditions=SPEC, asset_owners="team:pictures, me@example.com,team:pictures"
    )
    graph = definitions.get_repository_def().asset_graph
    for name in ("raw_images", "one", "two"):
        assert graph.get(dg.AssetKey(name)).owners == ["team:pictures", "me@example.com"]
    one = graph.get(dg.AssetKey("one"))
    ours = {name: value for name, value in one.tags.items() if "/" not in name}
    assert ours == {"bucket": "one-bucket", "fit": "cover", "format": "webp", "size": "30x20"}
    assert one.kinds == {"pillow", "s3"}
    for part in (
        "fit cover to 30 x 20 pixels at north",
        "as webp",
        "metadata, copyright is kept",
        "of an animation, the first frame",
        "`s3://one-bucket/KEY.webp`",
        "`Cache-Control: max-age=60`",
    ):
        assert part in (one.description or "")
    two = graph.get(dg.AssetKey("two")).description or ""
    assert "metadata, nothing is kept; of an animation, all frames" in two
    assert "Cache-Control" not in two
    assert graph.get(dg.AssetKey("raw_images")).tags["bucket"] == "images"


def test_assets_are_nobodys_by_default(tmp_path: Path) -> None:
    graph = built(tmp_path).get_repository_def().asset_graph
    assert not graph.get(dg.AssetKey("raw_images")).owners
    assert not graph.get(dg.AssetKey("large")).owners


def test_a_changed_spec_shows_as_a_changed_code_version(tmp_path: Path) -> None:
    def version(renditions: str) -> str | None:
        graph = built(tmp_path, renditions=renditions).get_repository_def().asset_graph
        return graph.get(dg.AssetKey("one")).code_version

    spec = "renditions: {{one: {{width: {width}, height: 5, bucket: one-bucket}}}}"
    assert version(spec.format(width=5)) == version(spec.format(width=5))
    assert version(spec.format(width=5)) != version(spec.format(width=6))


@pytest.mark.parametrize(
    ("length", "definition"),
    [("hourly", dg.HourlyPartitionsDefinition), ("daily", dg.DailyPartitionsDefinition)],
)
def test_partitions(tmp_path: Path, length: str, definition: type) -> None:
    graph = built(tmp_path, partitions=length).get_repository_def().asset_graph
    for name in ("raw_images", "large", "small"):
        assert isinstance(graph.get(dg.AssetKey(name)).partitions_def, definition)


def test_wrong_specs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is SOURCE_BUCKET"):
        built(tmp_path, renditions="renditions: {a: {width: 1, height: 1, bucket: images}}")
    with pytest.raises(UserError, match="RENDITIONS_FILE"):
        build_definitions(Settings(renditions_file=tmp_path / "none.yaml"))


def test_the_module_loads_in_the_projects_folder(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RENDITIONS_FILE", str(REPOSITORY / "renditions.yaml"))
    Path(".env").write_text("MINIO_ENDPIONT=x\n")
    defs = runpy.run_module("resize_pipeline.definitions")["defs"]
    keys = {key.to_user_string() for key in defs.resolve_all_asset_keys()}
    assert keys == {"raw_images", "large", "medium", "thumbnail"}
    # The command line tells of it; here each run would.
    assert "MINIO_ENDPIONT" not in capfd.readouterr().err


def test_a_wrong_setting_is_one_line_at_the_end_of_loading(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import resize_pipeline.definitions"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "", "UI_PORT": "x"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode != 0
    last = ended.stderr.strip().splitlines()[-1]
    assert "UI_PORT: " in last


def test_secrets_are_in_no_definition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster._core.remote_representation.external_data import RepositorySnap

    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    settings = fake_settings(
        tmp_path,
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_username="user-of-kafka",
        **{name.lower(): value for name, value in SECRETS.items()},
    )
    repository = build_definitions(settings).get_repository_def()
    shown = dg.serialize_value(RepositorySnap.from_def(repository))
    # What is looked for would be found: other settings of the same resources are there.
    assert "user-of-kafka" in shown
    assert "MINIO_SECRET_KEY" in shown
    assert "WEBHOOK_URL" in shown
    for value in SECRETS.values():
        assert value not in shown
        assert value not in json.dumps(shown)
