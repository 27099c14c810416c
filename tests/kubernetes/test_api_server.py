"""deploy/kubernetes against a real API server: fields, formats, and the pod security standard."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kubernetes.api_server import ApiServer, api_server, missing
from tests.support.kubernetes_files import FOLDER, OWN_OBJECTS, PODS, name_of
from tests.support.strimzi import definitions
from tests.support.waiting import wait_until

SERVED_TIMEOUT_S = 60

pytestmark = pytest.mark.kubernetes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[ApiServer]:
    if reason := missing():
        pytest.skip(f"NOT TESTED: {reason}")
    # Nothing here makes the account that each pod would get.
    options = ["--disable-admission-plugins=ServiceAccount"]
    with api_server(tmp_path_factory.mktemp("api"), options) as running:
        namespace = FOLDER / "servers" / "namespace.yaml"
        done = running.kubectl("apply", "--server-side", "-f", namespace)
        assert done.returncode == 0, done.stderr
        yield running


@pytest.mark.parametrize("overlay", ["", "small", "chart"])
def test_the_server_takes_everything_without_a_warning(
    server: ApiServer, folder: Path, overlay: str
) -> None:
    strict = ("--server-side", "--validate=strict", "--dry-run=server")
    done = server.kubectl("apply", *strict, "-k", folder / overlay)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@pytest.fixture(scope="module")
def strimzi(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> ApiServer:
    """The server with the definitions of Strimzi's resources."""
    for kind, file in definitions(tmp_path_factory.mktemp("definitions")).items():
        server.ask("apply", "--server-side", "-f", file)
        served = ("explain", f"{kind.lower()}.spec", "--api-version=kafka.strimzi.io/v1")
        wait_until(lambda: server.kubectl(*served).returncode == 0, SERVED_TIMEOUT_S, kind)  # noqa: B023
    return server


def test_the_server_takes_strimzi_s_overlay_without_a_warning(
    strimzi: ApiServer, folder: Path
) -> None:
    strict = ("--server-side", "--validate=strict", "--dry-run=server")
    done = strimzi.kubectl("apply", *strict, "-k", folder / "strimzi")
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("replicas: 3", "replicas: 3\n  replica: 3", "replica"),
        ("roles: [controller, broker]", "roles: [brokers]", "brokers"),
        ("size: 10Gi", "size: [10Gi]", "size"),
    ],
)
def test_the_server_refuses_what_strimzi_does_not_know(
    strimzi: ApiServer, old: str, new: str, said: str
) -> None:
    text = (FOLDER / "strimzi" / "kafka.yaml").read_text()
    assert old in text
    strict = ("--server-side", "--validate=strict", "--dry-run=server", "-f", "-")
    done = strimzi.kubectl(
        "apply", *strict, "--namespace=resize-pipeline", stdin=text.replace(old, new, 1)
    )
    assert done.returncode
    assert said in done.stderr


def test_the_server_refuses_a_field_that_it_does_not_know(server: ApiServer) -> None:
    wrong = dict(OWN_OBJECTS["ConfigMap", "dagster-settings"]) | {"date": {}}
    strict = ("--server-side", "--validate=strict", "--dry-run=server")
    done = server.kubectl("apply", *strict, "-f", "-", stdin=yaml.safe_dump(wrong))
    assert done.returncode
    assert "date" in done.stderr


def admit(server: ApiServer, spec: object) -> str:
    """Have the namespace admit a pod, and return why it did not."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tried"}, "spec": spec}
    created = ("create", "--namespace=resize-pipeline", "--dry-run=server", "-f", "-")
    done = server.kubectl(*created, stdin=yaml.safe_dump(pod))
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize("manifest", PODS, ids=name_of)
def test_the_namespace_admits_each_pod_and_not_as_root(
    server: ApiServer, manifest: dict[str, Any]
) -> None:
    spec = manifest["spec"]["template"]["spec"]
    claims = [one["metadata"]["name"] for one in manifest["spec"].get("volumeClaimTemplates", [])]
    volumes = [*spec.get("volumes", []), *({"name": name, "emptyDir": {}} for name in claims)]
    assert not admit(server, spec | {"volumes": volumes})
    as_root = spec | {"volumes": volumes, "securityContext": {"runAsUser": 0}}
    assert "violates PodSecurity" in admit(server, as_root)
