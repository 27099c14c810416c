"""The component `resize_pipeline.ImageRenditions`: what its YAML says is what the pipeline has."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox

import resize_pipeline
from resize_pipeline.component.image_renditions import ImageRenditions
from resize_pipeline.component.scaffolder import pipeline_name
from resize_pipeline.resources.pipeline import PipelineResource
from resize_pipeline.settings import Settings
from resize_pipeline.validators import checked_pipeline_name
from tests.support.scripts import REPOSITORY

SECRET = "hunter2-very-secret"
ATTRIBUTES = {
    "name": "photos",
    "minio_endpoint": "https://minio.example.com",
    "minio_access_key_variable": "PHOTOS_KEY",
    "minio_secret_key_variable": "PHOTOS_SECRET",
    "source_bucket": "photos",
    "kafka_bootstrap_servers": "kafka.example.com:9092",
    "kafka_topic": "photos-events",
    "renditions": {"small": {"width": 20, "height": 20, "bucket": "photos-small"}},
}


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DefsFolderSandbox]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MINIO_ENDPOINT", "http://minio.example.com:9000")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka.example.com:9092")
    with create_defs_folder_sandbox() as made:
        yield made


def add(sandbox: DefsFolderSandbox, name: str, **changes: Any) -> Path:
    attributes = ATTRIBUTES | {"name": name} | changes
    given = {key: one for key, one in attributes.items() if one is not None}
    contents = {"type": "resize_pipeline.ImageRenditions", "attributes": given}
    return sandbox.scaffold_component(ImageRenditions, name, defs_yaml_contents=contents)


def pipeline_of(definitions: dg.Definitions, name: str) -> PipelineResource:
    assert definitions.resources
    with dg.build_resources({"pipeline": definitions.resources[f"{name}_pipeline"]}) as resources:
        return resources.pipeline


def refusal(sandbox: DefsFolderSandbox) -> str:
    with pytest.raises(Exception) as raised, sandbox.build_all_defs():  # noqa: PT011
        pass
    said: list[str] = []
    error: BaseException | None = raised.value
    while error:
        said.append(str(error))
        error = error.__cause__
    return "\n".join(said)


def test_is_where_dagster_looks() -> None:
    assert resize_pipeline.ImageRenditions is ImageRenditions
    assert "ImageRenditions" in dir(resize_pipeline)


def test_the_page_of_the_component_describes_each_attribute() -> None:
    page = (REPOSITORY / "docs" / "components.md").read_text()
    for name, field in ImageRenditions.model().model_fields.items():
        assert field.description, name
        assert field.examples, name
        assert f"`{name}`" in page


def test_the_example_of_the_ui_loads(sandbox: DefsFolderSandbox) -> None:
    folder = sandbox.scaffold_component(ImageRenditions, "photos")
    schema = ImageRenditions.model().model_json_schema()
    examples = {name: one["examples"][0] for name, one in schema["properties"].items()}
    contents = {"type": "resize_pipeline.ImageRenditions", "attributes": examples}
    (folder / "defs.yaml").write_text(yaml.safe_dump(contents))
    with sandbox.build_all_defs() as definitions:
        dg.Definitions.validate_loadable(definitions)


def test_two_that_were_scaffolded_load(sandbox: DefsFolderSandbox) -> None:
    for name in ("photos", "scans"):
        sandbox.scaffold_component(ImageRenditions, name)
    with sandbox.build_all_defs() as definitions:
        dg.Definitions.validate_loadable(definitions)
        for name in ("photos", "scans"):
            pipeline = pipeline_of(definitions, name)
            assert pipeline.source_bucket == pipeline.kafka_consumer_group == name
            assert {one.bucket for one in pipeline.renditions} == {
                f"{name}-large",
                f"{name}-thumbnail",
            }


def test_a_second_one_can_be_appended_to_the_file(sandbox: DefsFolderSandbox) -> None:
    folder = sandbox.scaffold_component(ImageRenditions, "photos")
    request = dg.ScaffoldRequest(
        type_name="resize_pipeline.ImageRenditions",
        target_path=folder / "defs.yaml",
        scaffold_format="yaml",
        project_root=None,
        params=None,
        append=True,
    )
    dg.components.scaffold.scaffold.get_scaffolder(ImageRenditions).scaffold(request)
    assert len([*yaml.safe_load_all((folder / "defs.yaml").read_text())]) == 2


@pytest.mark.parametrize(
    "folder", ["photos", "Photos_2024", "2024", "x", "résumé", "a" * 40, "resize_pipeline", "-", ""]
)
def test_any_folder_has_a_name_for_its_pipeline(folder: str) -> None:
    assert checked_pipeline_name(pipeline_name(folder)) != "resize-pipeline"


def test_the_environment_of_another_pipeline_changes_nothing(
    sandbox: DefsFolderSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(sandbox, "photos")
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "nonsense")
    Path(".env").write_text("RUN_MAX_OBJECTS=7\n")
    with sandbox.build_all_defs() as definitions:
        pipeline = pipeline_of(definitions, "photos")
    assert pipeline.run_max_objects == Settings.model_fields["run_max_objects"].default


def test_secrets_are_not_in_the_definitions(
    sandbox: DefsFolderSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        "minio_access_key_variable": "A",
        "minio_secret_key_variable": "B",
        "kafka_sasl_password_variable": "C",
        "webhook_url_variable": "D",
    }
    for variable in variables.values():
        monkeypatch.setenv(variable, SECRET)
    sasl = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_username": "photos"}
    folder = add(sandbox, "photos", settings=sasl, **variables)
    with sandbox.load_component_and_build_defs(folder) as (_, definitions):
        assert definitions.resources
        described = {
            name: str(getattr(one, "description", ""))
            for name, one in definitions.resources.items()
        }
        assert "- access_key: the variable `A`" in described["photos_minio"]
        assert "- secret_key: the variable `B`" in described["photos_minio"]
        assert "- sasl_password: the variable `C`" in described["photos_kafka"]
        assert "- url: the variable `D`" in described["photos_webhook"]
        snapshot = dg.serialize_value(
            dg._core.remote_representation.external_data.RepositorySnap.from_def(
                definitions.get_repository_def()
            )
        )
        assert "photos_webhook" in snapshot
        assert SECRET not in snapshot + json.dumps(described)


def test_a_variable_is_named_and_not_resolved(
    sandbox: DefsFolderSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOS_SECRET", SECRET)
    add(sandbox, "photos", minio_secret_key_variable="{{ env.PHOTOS_SECRET }}")
    refused = refusal(sandbox)
    assert "must be the name of an environment variable" in refused
    assert SECRET not in refused


def test_text_that_looks_like_a_value_of_python_stays_text(
    sandbox: DefsFolderSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMALL", "40")
    monkeypatch.delenv("LARGE", raising=False)
    monkeypatch.setenv("PROCESSED", "2024")
    spec = {
        "width": "{{ env.SMALL }}",
        "height": "{{ env.LARGE or 20 }}",
        "fit": "cover",
        "position": "0.5,0.25",
        "bucket": "photos-{{ env.PROCESSED }}",
    }
    add(sandbox, "photos", source_bucket="{{ env.PROCESSED }}", renditions={"small": spec})
    with sandbox.build_all_defs() as definitions:
        pipeline = pipeline_of(definitions, "photos")
    [small] = pipeline.renditions
    assert pipeline.source_bucket == "2024"
    assert (small.width, small.position, small.bucket) == (40, "0.5,0.25", "photos-2024")


def test_a_spec_file_is_beside_defs_yaml(sandbox: DefsFolderSandbox) -> None:
    folder = add(sandbox, "photos", renditions="specs.yaml")
    (folder / "specs.yaml").write_text(yaml.safe_dump({"renditions": ATTRIBUTES["renditions"]}))
    with sandbox.build_all_defs() as definitions:
        pipeline = pipeline_of(definitions, "photos")
    assert pipeline.renditions_file == str(folder / "specs.yaml")
    assert [one.name for one in pipeline.renditions] == ["small"]


def test_further_settings_are_those_of_the_documentation(sandbox: DefsFolderSandbox) -> None:
    further = {"run_max_objects": 7, "delete_renditions": True, "minio_ca_file": "ca.pem"}
    folder = add(sandbox, "photos", settings=further)
    with sandbox.load_component_and_build_defs(folder) as (_, definitions):
        pipeline = pipeline_of(definitions, "photos")
        assert definitions.resources
        minio = definitions.resources["photos_minio"].description
    assert (pipeline.run_max_objects, pipeline.delete_renditions) == (7, True)
    assert f"`{folder / 'ca.pem'}`" in minio


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "resize-pipeline"}, "adds nothing to names"),
        ({"name": "Photos"}, "name: 'Photos' must be 3 to 20 lower-case letters"),
        ({"source_bucket": "No"}, "source_bucket: 'No' must be an S3 bucket name"),
        ({"minio_endpoint": "{{ env.NOWHERE }}"}, "{{ env.NOWHERE }} has no value"),
        ({"source_bucket": "a-{{ env.NOWHERE }}"}, "a-{{ env.NOWHERE }} has no value"),
        ({"renditions": {"small": {"prefix": "{{ env.NOWHERE }}/"}}}, "}}/ has no value"),
        ({"renditions": "specs.yaml"}, "specs.yaml: write it, or correct this"),
        ({"renditions": "a.yaml", "analyses": {"entropy": {}}}, "belong into a.yaml, too"),
        ({"analyses": {"entropy": {}}}, "set CATALOG_BUCKET"),
        ({"renditions": {"small": {"widht": 2}}}, "'photos': rendition 'small', width: missing"),
        ({"renditions": {}}, "not a file of renditions"),
        ({"settings": {"run_max_object": 7}}, "did you mean run_max_objects?"),
        ({"settings": {"run_max_objects": "many"}}, "run_max_objects: 'many'"),
        ({"settings": {"source_suffixes": [".jpg"]}}, "must be text, a number, true or false"),
        ({"settings": {"minio_secret_key": SECRET}}, "minio_secret_key: a secret"),
        ({"settings": {"webhook_url": SECRET}}, "webhook_url: a secret"),
        ({"settings": {"local_dir": "there"}}, "local_dir: has no effect in a component"),
        ({"settings": {"kafka_topic": "other"}}, "kafka_topic: an attribute of the component"),
        (
            {"settings": {"kafka_security_protocol": "SASL_SSL"}},
            "requires KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
        ),
    ],
)
def test_a_mistake_is_named(sandbox: DefsFolderSandbox, changes: dict[str, Any], said: str) -> None:
    add(sandbox, **({"name": "photos"} | changes))
    refused = refusal(sandbox)
    assert said in refused
    assert SECRET not in refused


def test_an_unwritable_cache_is_named(
    sandbox: DefsFolderSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    add(sandbox, "photos")
    assert "write its name instead" in refusal(sandbox)
