"""What whoever may launch a run can configure: which objects, and nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap

from resize_pipeline.definitions import build_definitions
from resize_pipeline.defs.jobs import run_config
from resize_pipeline.defs.ops.config import KEY_MAX_BYTES, LISTED_MAX_OBJECTS, PlanConfig
from resize_pipeline.errors import UserError
from tests.dagster.fakes import fake_settings
from tests.support.names import NAMES

SECRET = "secret-7d1f"
STRANGERS = {"endpoint": "http://attacker.example:9000", "access_key": {"env": "MINIO_SECRET_KEY"}}
RESOURCES = ("minio", "kafka", "pipeline", "renderer", "webhook", "io_manager")


@pytest.fixture
def definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    for name in ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"):
        monkeypatch.setenv(name, SECRET)
    return build_definitions(fake_settings(tmp_path, webhook_url="http://127.0.0.1:9/hook"))


def jobs(definitions: dg.Definitions) -> Iterator[dg.JobDefinition]:
    yield from definitions.get_repository_def().get_all_jobs()


def config_fields(job: dg.JobDefinition) -> dict[str, str]:
    """Map each path that a run's configuration can have to the key of its type."""
    types = job.get_job_snapshot().config_schema_snapshot.all_config_snaps_by_key
    found: dict[str, str] = {}

    def walk(key: str, path: str) -> None:
        found[path] = key
        kind = types.get(key)
        for field in (kind.fields if kind else None) or []:
            walk(field.type_key, f"{path}.{field.name}")
        for index, inner in enumerate((kind.type_param_keys if kind else None) or []):
            walk(inner, f"{path}[{index}]")

    walk(job.run_config_schema.run_config_schema_type.key, "")
    return found


def test_no_field_resolves_a_variable(definitions: dg.Definitions) -> None:
    seen = 0
    for job in jobs(definitions):
        fields = config_fields(job)
        seen += len(fields)
        assert not [path for path, key in fields.items() if "Source" in key or ".env" in path]
    assert seen > 100


def test_only_the_plan_has_anything_to_configure(definitions: dg.Definitions) -> None:
    configurable = {
        path
        for job in jobs(definitions)
        for path, key in config_fields(job).items()
        if ".config" in path
        if key.startswith(("String", "Int", "Bool", "Float", "Array", "Noneable", "Map"))
    }
    plan = ".ops.renditions.ops.plan.config."
    assert {path.removeprefix(plan).split("[")[0] for path in configurable} == {
        *PlanConfig.model_fields
    }


@pytest.mark.parametrize("name", RESOURCES)
def test_resources_can_not_be_configured(definitions: dg.Definitions, name: str) -> None:
    for job in jobs(definitions):
        for config in (STRANGERS, {"endpoint": "http://attacker.example"}, {"url": "http://a"}):
            with pytest.raises(dg.DagsterInvalidConfigError, match="unexpected config"):
                dg.validate_run_config(job, {"resources": {name: {"config": config}}})


@pytest.mark.parametrize(
    "config",
    [
        {"execution": {"config": {"marker_to_close": "x"}}},
        {"execution": {"config": {"multiprocess": {}}}},
        {"loggers": {"console": {"config": {"name": "\x1b]0;x\x07"}}}},
        {"loggers": {"other": {"config": {}}}},
        run_config(NAMES, prefix={"env": "MINIO_SECRET_KEY"}),
        run_config(NAMES, objects=[{"env": "MINIO_SECRET_KEY"}]),
        run_config(NAMES, offset_ranges=[{"env": "MINIO_SECRET_KEY"}]),
        run_config(NAMES, reconcile={"env": "MINIO_SECRET_KEY"}),
        run_config(NAMES, unknown="x"),
    ],
)
def test_a_run_that_configures_anything_else_is_refused(
    definitions: dg.Definitions, config: dict
) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError) as refused:
        dg.validate_run_config(definitions.resolve_job_def("resize_images_job"), config)
    assert SECRET not in str(refused.value)


def test_what_a_run_covers_can_still_be_configured(definitions: dg.Definitions) -> None:
    job = definitions.resolve_job_def("resize_images_job")
    config = run_config(NAMES, objects=["a.jpg"], version_id="v", force=True)
    assert dg.validate_run_config(job, config)
    assert dg.validate_run_config(job, {"resources": {"minio": {}}})


def test_the_ui_shows_what_resources_are_without_a_secret(definitions: dg.Definitions) -> None:
    snapshot = RepositorySnap.from_def(definitions.get_repository_def())
    shown = {one.name: one.resource_snapshot.description or "" for one in snapshot.resources or []}
    assert {*shown} == {*RESOURCES}
    assert "endpoint: `http://127.0.0.1:9000`" in shown["minio"]
    assert "secret_key: the variable `MINIO_SECRET_KEY`" in shown["minio"]
    assert "url: the variable `WEBHOOK_URL`" in shown["webhook"]
    # The defaults of a class would be shown as if they were the values.
    assert not [field for one in snapshot.resources or [] for field in one.config_field_snaps]
    assert SECRET not in json.dumps(dg.serialize_value(snapshot))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"prefix": "x" * (KEY_MAX_BYTES + 1)}, "prefix in the run's configuration: .* 1024 bytes"),
        ({"objects": ["é" * KEY_MAX_BYTES]}, r"objects\.0 in the run's configuration"),
        ({"objects": ["k"] * (LISTED_MAX_OBJECTS + 1)}, "objects .*: 5001 entries: .* 5000"),
        ({"offset_ranges": ["0:0-1" * 20]}, r"offset_ranges\.0"),
        ({"topic_id": "x" * 10_000}, "topic_id"),
        ({"spec_digest": "x" * 10_000}, "spec_digest"),
    ],
)
def test_what_a_run_covers_is_bounded(config: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        PlanConfig.parse(config)
    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)


def test_the_defaults_are_those_of_the_model(definitions: dg.Definitions) -> None:
    job = definitions.resolve_job_def("resize_images_job")
    [op] = [op for op in job.all_node_defs if op.name == "plan"]
    fields = op.config_schema.config_type.fields
    assert PlanConfig.parse({name: field.default_value for name, field in fields.items()}) == (
        PlanConfig()
    )
    assert all(field.description for field in fields.values())


def test_a_variable_that_is_not_set_is_named(
    definitions: dg.Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert definitions.resources
    monkeypatch.delenv("MINIO_SECRET_KEY")
    with (
        pytest.raises(dg.DagsterInvalidConfigError, match="MINIO_SECRET_KEY"),
        dg.build_resources({"minio": definitions.resources["minio"]}),
    ):
        pass


def test_variables_are_resolved_when_a_run_starts(definitions: dg.Definitions) -> None:
    assert definitions.resources
    with dg.build_resources({"minio": definitions.resources["minio"]}) as resources:
        assert resources.minio.secret_key == SECRET
