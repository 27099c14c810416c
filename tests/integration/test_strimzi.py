"""deploy/kubernetes/strimzi against the definitions that Strimzi's own generator makes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.support.strimzi import CLASSES, VERSION, definitions

pytestmark = pytest.mark.integration

DEPLOY = Path(__file__).parents[2] / "deploy"
RESOURCES: list[dict[str, Any]] = [
    one
    for one in yaml.safe_load_all((DEPLOY / "kubernetes" / "strimzi" / "kafka.yaml").read_text())
    if one["kind"] in CLASSES
]


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The schema of each kind, with fields that it does not know as errors."""
    files = definitions(tmp_path_factory.mktemp("definitions"))
    found: dict[str, dict[str, Any]] = {}
    for kind, file in files.items():
        definition = yaml.load(file.read_text(), yaml.CSafeLoader)["spec"]
        (version,) = definition["versions"]
        assert (definition["group"], version["name"]) == ("kafka.strimzi.io", "v1")
        found[kind] = strict(version["schema"]["openAPIV3Schema"])
    return found


def strict(schema: Any) -> Any:
    """A server drops fields that it does not know in silence; here they are errors."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    copied = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get(
        "x-kubernetes-preserve-unknown-fields"
    ):
        copied.setdefault("additionalProperties", False)
    return copied


def errors(resource: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    return (
        f"{e.json_path}: {e.message}" for e in Draft202012Validator(schema).iter_errors(resource)
    )


@pytest.mark.parametrize(
    "resource", RESOURCES, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}"
)
def test_a_resource_is_as_strimzi_has_it(
    schemas: dict[str, dict[str, Any]], resource: dict[str, Any]
) -> None:
    assert resource["apiVersion"] == "kafka.strimzi.io/v1"
    assert not list(errors(resource, schemas[resource["kind"]]))


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Kafka", {"zookeeper": {"replicas": 3}}),
        ("Kafka", {"kafka": {"replicas": 3}}),
        ("KafkaNodePool", {"roles": ["brokers"]}),
        ("KafkaTopic", {"partitions": "3"}),
    ],
)
def test_what_strimzi_does_not_know_is_found(
    schemas: dict[str, dict[str, Any]], kind: str, spec: dict[str, Any]
) -> None:
    (right, *_) = [one for one in RESOURCES if one["kind"] == kind]
    assert list(errors(right | {"spec": right["spec"] | spec}, schemas[kind]))


def test_the_readme_installs_this_strimzi() -> None:
    assert f"strimzi-kafka-operator --version {VERSION} " in (DEPLOY / "README.md").read_text()
