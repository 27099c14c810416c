"""deploy/kubernetes: compared with Kubernetes' models, Dagster's own schemas and itself."""

import re
from typing import Any

import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config_schema
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.storage.dagster_run import DagsterRun
from dagster_k8s import K8sRunLauncher
from dagster_k8s.job import construct_dagster_k8s_job
from kubernetes import client
from pydantic import ValidationError

from resize_pipeline.instance.celery_launcher import LOST_MAX_RETRIES
from resize_pipeline.local.servers import versions
from resize_pipeline.provisioning.topics import (
    MAX_MESSAGE_BYTES_DEFAULT,
    TopicSpec,
    completion_topic,
    dead_letter_topic,
    source_topic,
    topic_changes,
)
from resize_pipeline.settings import Settings
from tests.support.deployment import (
    APP_IMAGE,
    DEPLOY,
    DOCKERFILE,
    MINIO_IMAGE,
    REPOSITORY,
    SERVICES,
    SETTINGS,
    pinned,
    values,
)
from tests.support.kubernetes_files import (
    FOLDER,
    OWN,
    OWN_OBJECTS,
    PODS,
    SECRETS,
    STRIMZI,
    by_name,
    containers,
    manifests,
    name_of,
)
from tests.support.kubernetes_models import model_of, problems

NAMESPACE = SECRETS["namespace"]
VALUES: dict[str, Any] = yaml.safe_load((FOLDER / "chart" / "dagster-values.yaml").read_text())
(CODE,) = VALUES["dagster-user-deployments"]["deployments"]
LAUNCHER: dict[str, Any] = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
INSTANCE: dict[str, Any] = VALUES["additionalInstanceConfig"]

# The chart's values belong to these, with Strimzi's Kafka.
MANIFESTS = manifests("servers") + manifests("strimzi")
OBJECTS = by_name(MANIFESTS)
PLAIN = [
    one
    for one in [*OWN, *manifests("strimzi"), *manifests("chart")]
    if one["apiVersion"] != STRIMZI
]

# The keys of the chart that are used here, as its values.schema.json has them. That file comes with
# no package; Helm compares with it when it installs.
IMAGE = {"repository", "tag", "pullPolicy"}
POD = {"image", "podSecurityContext", "securityContext", "resources"}
CHART: dict[str, set[str]] = {
    "": {
        *("global", "generatePostgresqlPasswordSecret", "postgresql", "dagster-user-deployments"),
        *("runLauncher", "dagsterWebserver", "dagsterDaemon", "retention", "telemetry"),
        "additionalInstanceConfig",
    },
    "global": {"postgresqlSecretName", "dagsterHome"},
    "postgresql": {
        *("enabled", "image", "postgresqlHost", "postgresqlUsername", "postgresqlDatabase"),
        "postgresqlScheme",
    },
    "postgresql.image": IMAGE,
    "dagster-user-deployments": {"enabled", "deployments"},
    "dagster-user-deployments.deployments": POD
    | {"name", "port", "dagsterApiGrpcArgs", "includeConfigInLaunchedRuns", "envConfigMaps"}
    | {"envSecrets", "readinessProbe", "livenessProbe", "startupProbe"},
    "dagster-user-deployments.deployments.image": IMAGE,
    "dagster-user-deployments.deployments.includeConfigInLaunchedRuns": {"enabled"},
    "runLauncher": {"type", "config"},
    "runLauncher.config": {"k8sRunLauncher"},
    "runLauncher.config.k8sRunLauncher": {
        *("imagePullPolicy", "envConfigMaps", "envSecrets", "resources", "securityContext"),
        "runK8sConfig",
    },
    "runLauncher.config.k8sRunLauncher.runK8sConfig": {"podSpecConfig", "jobSpecConfig"},
    "dagsterWebserver": POD | {"workspace", "service", "readinessProbe", "env", "envSecrets"},
    "dagsterWebserver.image": IMAGE,
    "dagsterWebserver.workspace": {"enabled", "servers"},
    "dagsterWebserver.workspace.servers": {"host", "port", "name"},
    "dagsterWebserver.service": {"port"},
    "dagsterDaemon": POD
    | {"sensors", "schedules", "runCoordinator", "runMonitoring", "runRetries"},
    "dagsterDaemon.image": IMAGE,
    "dagsterDaemon.sensors": {"useThreads", "numWorkers"},
    "dagsterDaemon.schedules": {"useThreads", "numWorkers"},
    "dagsterDaemon.runCoordinator": {"enabled"},
    "dagsterDaemon.runMonitoring": {"enabled"},
    "dagsterDaemon.runRetries": {"enabled"},
    "retention": {"enabled"},
    "telemetry": {"enabled"},
}


def generated(name: str) -> dict[str, str]:
    """What the example of a generated Secret holds."""
    (generator,) = [one for one in SECRETS["secretGenerator"] if one["name"] == name]
    (file,) = generator["envs"]
    lines = (FOLDER / "secrets" / f"{file}.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("manifest", PLAIN, ids=name_of)
def test_a_manifest_is_as_kubernetes_has_it(manifest: dict[str, Any]) -> None:
    assert not list(problems(manifest, model_of(manifest), name_of(manifest)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"replicas": "1"}, ".spec.replicas: '1' is no int"),
        ({"replica": 1}, ".spec.replica: V1StatefulSetSpec has no such field"),
        ({"selector": {"matchLabels": {"app": 1}}}, ".spec.selector.matchLabels.app: 1 is no str"),
        ({"template": {"spec": {"containers": [{}]}}}, ".spec.template.spec.containers[0].name is"),
    ],
)
def test_the_models_find_what_is_wrong(change: dict[str, Any], said: str) -> None:
    right = OBJECTS["StatefulSet", "minio"]
    wrong = right | {"spec": right["spec"] | change}
    (found,) = problems(wrong, model_of(wrong))
    assert found.startswith(said)


@pytest.mark.parametrize("manifest", PODS, ids=name_of)
def test_pods_are_limited_not_root_and_not_fed_with_the_variables_of_services(
    manifest: dict[str, Any],
) -> None:
    pod = manifest["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["enableServiceLinks"] is False
    for container in pod["containers"]:
        assert container["securityContext"].items() >= CODE["securityContext"].items()
        is_ours = container["image"] == APP_IMAGE
        assert container["securityContext"].get("readOnlyRootFilesystem", False) is is_ours
        assert "memory" in container["resources"]["limits"]
        assert manifest["kind"] == "Job" or {"readinessProbe", "livenessProbe"} <= container.keys()


@pytest.mark.parametrize("manifest", PODS, ids=name_of)
def test_selectors_and_mounts_find_what_they_name(manifest: dict[str, Any]) -> None:
    spec = manifest["spec"]
    labels = spec["template"]["metadata"]["labels"]
    if manifest["kind"] != "Job":
        selected = spec["selector"]["matchLabels"]
        assert selected.items() <= labels.items()
        ports = {port["name"] for one in containers(manifest) for port in one.get("ports", [])}
        services = [one for one in OWN if one["kind"] == "Service"]
        matching = [one["spec"] for one in services if one["spec"]["selector"] == selected]
        assert {port["targetPort"] for one in matching for port in one["ports"]} == ports
    if manifest["kind"] == "StatefulSet":
        service = OWN_OBJECTS["Service", spec["serviceName"]]["spec"]
        assert service["selector"] == spec["selector"]["matchLabels"]
    claims = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
    for volume in spec["template"]["spec"].get("volumes", []):
        if claim := volume.get("persistentVolumeClaim"):
            assert ("PersistentVolumeClaim", claim["claimName"]) in OWN_OBJECTS
        claims.add(volume["name"])
    mounts = {m["name"] for one in containers(manifest) for m in one.get("volumeMounts", [])}
    assert mounts == claims


@pytest.mark.parametrize("manifest", PODS, ids=name_of)
def test_variables_come_from_what_is_there(manifest: dict[str, Any]) -> None:
    secrets = {one["name"]: generated(one["name"]) for one in SECRETS["secretGenerator"]}
    maps = {name for kind, name in OWN_OBJECTS if kind == "ConfigMap"}
    for container in containers(manifest):
        for source in container.get("envFrom", []):
            assert source.get("secretRef", {}).get("name", "minio-root") in secrets
            assert source.get("configMapRef", {}).get("name", "resize-pipeline-settings") in maps
        for variable in container.get("env", []):
            if "valueFrom" in variable:
                key = variable["valueFrom"]["secretKeyRef"]
                assert key["key"] in secrets[key["name"]]
            else:
                assert "PASSWORD" not in variable["name"]


def test_images_are_those_of_the_compose_file() -> None:
    images = {one["image"] for manifest in PODS for one in containers(manifest)}
    servers = {SERVICES[name]["image"] for name in ("kafka", "postgres")}
    assert images == {APP_IMAGE, MINIO_IMAGE, *servers}
    for section in (VALUES["dagsterWebserver"], VALUES["dagsterDaemon"], CODE):
        assert f"{section['image']['repository']}:{section['image']['tag']}" == APP_IMAGE
    postgres = VALUES["postgresql"]["image"]
    assert (
        f"{postgres['repository']}:{postgres['tag']}" == f"library/{SERVICES['postgres']['image']}"
    )


def test_every_variable_of_ours_is_a_setting() -> None:
    settings = OBJECTS["ConfigMap", "resize-pipeline-settings"]["data"]
    (provision,) = containers(OBJECTS["Job", "provision"])
    own = {one["name"]: one["value"] for one in provision["env"]}
    secret = generated("resize-pipeline-credentials") | generated("minio-root")
    assert {*settings, *own, *secret} <= SETTINGS
    assert {"MINIO_ENDPOINT", "KAFKA_BOOTSTRAP_SERVERS"} <= settings.keys()
    Settings(_env_file=None, **{k.lower(): v for k, v in (settings | own).items()})


def test_what_the_examples_hold_is_refused() -> None:
    """MinIO takes no user of less than 3 characters and no secret of less than 8."""
    for name in ("resize-pipeline-credentials", "minio-root"):
        for variable, value in generated(name).items():
            assert len(value) < (3 if variable.endswith(("USER", "ACCESS_KEY")) else 8)
    assert generated("dagster-postgresql-secret") == {"postgresql-password": ""}


def test_secrets_are_kept_out_of_version_control() -> None:
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert "/deploy/kubernetes/secrets/*.env" in ignored
    for one in SECRETS["secretGenerator"]:
        assert all(file.endswith(".env") and "/" not in file for file in one["envs"])


def test_the_cluster_is_one_control_plane_and_three_workers() -> None:
    kind = yaml.safe_load((FOLDER / "kind.yaml").read_text())
    assert (kind["kind"], kind["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4")
    assert [node["role"] for node in kind["nodes"]] == ["control-plane", *["worker"] * 3]
    for node in kind["nodes"]:
        assert node.keys() == {"role", "image"}
        assert re.fullmatch(r"kindest/node:v1\.36\.\d+@sha256:[0-9a-f]{64}", node["image"])
    # The models that the manifests are compared with are of the same Kubernetes.
    assert pinned("kubernetes").startswith("36.")


def test_kafka_is_the_local_stack_s_and_has_a_node_for_each_worker() -> None:
    kafka, pool = OBJECTS["Kafka", "events"], OBJECTS["KafkaNodePool", "nodes"]
    assert kafka["spec"]["kafka"]["version"] == versions.KAFKA_VERSION
    assert set(pool["spec"]["roles"]) == {"controller", "broker"}
    assert pool["spec"]["replicas"] == 3
    config = kafka["spec"]["kafka"]["config"]
    assert config["auto.create.topics.enable"] is False
    assert {v for k, v in config.items() if k.endswith("replication.factor")} == {3}
    address = OBJECTS["ConfigMap", "resize-pipeline-settings"]["data"]["KAFKA_BOOTSTRAP_SERVERS"]
    (listener,) = kafka["spec"]["kafka"]["listeners"]
    assert address == f"{kafka['metadata']['name']}-kafka-bootstrap:{listener['port']}"
    topics = ("minio-events", "minio-events.dead-letters", "minio-events.renditions")
    for name in ("nodes", *topics):
        (found,) = [one for (_, other), one in OBJECTS.items() if other == name]
        assert found["metadata"]["labels"] == {"strimzi.io/cluster": kafka["metadata"]["name"]}


def test_provisioning_has_nothing_to_do_on_the_topics() -> None:
    settings = Settings(_env_file=None, completion_events=True)
    for wanted in (
        source_topic(settings),
        dead_letter_topic(settings, MAX_MESSAGE_BYTES_DEFAULT),
        completion_topic(settings),
    ):
        spec = OBJECTS["KafkaTopic", wanted.name]["spec"]
        configs = {key: str(value) for key, value in spec["config"].items()}
        assert not topic_changes(wanted, TopicSpec(wanted.name, spec["partitions"], configs))


def test_the_chart_knows_each_key() -> None:
    def unknown(value: Any, path: str) -> list[str]:
        if isinstance(value, list):
            return [name for item in value for name in unknown(item, path)]
        if path not in CHART or not isinstance(value, dict):
            return []
        found = [f"{path}.{key}" for key in value.keys() - CHART[path]]
        for key, item in value.items():
            found += unknown(item, f"{path}.{key}".lstrip("."))
        return found

    assert not unknown(VALUES, "")
    assert unknown({"postgresql": {"postgresHost": "x"}}, "") == ["postgresql.postgresHost"]


def test_what_the_chart_hands_to_kubernetes_is_as_kubernetes_has_it() -> None:
    for section in (VALUES["dagsterWebserver"], VALUES["dagsterDaemon"], CODE, LAUNCHER):
        for key, model in (
            ("resources", "V1ResourceRequirements"),
            ("securityContext", "V1SecurityContext"),
            ("podSecurityContext", "V1PodSecurityContext"),
            ("readinessProbe", "V1Probe"),
        ):
            value = {k: v for k, v in section.get(key, {}).items() if k != "enabled"}
            assert not list(problems(value, model, key))
        assert "memory" in section["resources"]["limits"]
    run = LAUNCHER["runK8sConfig"]
    assert not list(problems(run["podSpecConfig"], "V1PodSpec", partial=True))
    assert not list(problems(run["jobSpecConfig"], "V1JobSpec", partial=True))


def launcher_config() -> dict[str, Any]:
    """The run launcher's configuration, as the chart's template writes it into dagster.yaml."""
    run = LAUNCHER["runK8sConfig"]
    config = {
        "load_incluster_config": True,
        "job_namespace": NAMESPACE,
        "image_pull_policy": LAUNCHER["imagePullPolicy"],
        "service_account_name": "dagster",
        "dagster_home": VALUES["global"]["dagsterHome"],
        "instance_config_map": "dagster-instance",
        "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
        "env_config_maps": [one["name"] for one in LAUNCHER["envConfigMaps"]],
        "env_secrets": [one["name"] for one in LAUNCHER["envSecrets"]],
        "resources": LAUNCHER["resources"],
        "security_context": LAUNCHER["securityContext"],
        "run_k8s_config": {
            "pod_spec_config": run["podSpecConfig"],
            "job_spec_config": run["jobSpecConfig"],
        },
    }
    assert VALUES["runLauncher"]["type"] == K8sRunLauncher.__name__
    result = process_config(resolve_to_config_type(K8sRunLauncher.config_type()), config)
    assert result.success, result.errors
    return dict(result.value)


def test_each_run_is_a_pod_with_limits_and_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job that Dagster's own launcher would make of the values."""
    monkeypatch.setattr("dagster_k8s.launcher.load_kubernetes_config", lambda **_: None)
    launcher = K8sRunLauncher(**launcher_config())
    context = launcher.get_container_context_for_run(DagsterRun(job_name="resize_images_job"))
    made = construct_dagster_k8s_job(
        job_config=context.get_k8s_job_config(job_image=APP_IMAGE, run_launcher=launcher),
        args=["dagster", "api", "execute_run"],
        job_name="run",
        user_defined_k8s_config=context.run_k8s_config,
    )
    job = client.ApiClient().sanitize_for_serialization(made)
    assert not list(problems(job, "V1Job"))
    pod = job["spec"]["template"]["spec"]
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400
    assert pod["restartPolicy"] == "Never", "Dagster repeats a run"
    assert pod["securityContext"] == CODE["podSecurityContext"]
    assert pod["enableServiceLinks"] is False
    (container,) = pod["containers"]
    assert container["image"] == APP_IMAGE
    assert container["resources"] == LAUNCHER["resources"]
    assert container["securityContext"] == LAUNCHER["securityContext"]
    assert {"configMapRef": {"name": "resize-pipeline-settings"}} in container["envFrom"]
    assert {"secretRef": {"name": "resize-pipeline-credentials"}} in container["envFrom"]


def test_code_server_and_runs_have_the_same_settings_and_credentials() -> None:
    for key in ("envConfigMaps", "envSecrets"):
        assert CODE[key] == LAUNCHER[key]
    assert {"name": "minio-root"} not in LAUNCHER["envSecrets"]
    assert {one["name"] for one in LAUNCHER["envConfigMaps"]} == {
        name for kind, name in OBJECTS if kind == "ConfigMap"
    }
    assert VALUES["global"]["dagsterHome"] == values(DOCKERFILE, "ENV")["DAGSTER_HOME"]


def test_the_instance_is_the_project_s_own_but_for_storage_launcher_and_numbers_of_runs() -> None:
    ours = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())
    daemon = VALUES["dagsterDaemon"]
    for key in ("runCoordinator", "runMonitoring", "runRetries"):
        assert daemon[key] == {"enabled": False}, "the chart would write the section a second time"
    assert VALUES["retention"] == {"enabled": False}
    for key in ("run_monitoring", "retention", "nux"):
        assert INSTANCE[key] == ours[key]
    assert INSTANCE["run_retries"] == ours["run_retries"] | {"max_retries": LOST_MAX_RETRIES}
    for key in ("sensors", "schedules"):
        assert daemon[key] == {
            "useThreads": ours[key]["use_threads"],
            "numWorkers": ours[key]["num_workers"],
        }
    assert VALUES["telemetry"] == ours["telemetry"]
    coordinator = INSTANCE["run_coordinator"]["config"]
    assert coordinator == ours["run_coordinator"]["config"] | ours["concurrency"]["runs"]
    assert INSTANCE.keys() == {
        *("run_coordinator", "run_monitoring", "run_retries", "retention", "nux")
    }


def test_dagster_takes_the_instance() -> None:
    schema = resolve_to_config_type(dagster_instance_config_schema())
    result = process_config(schema, INSTANCE)
    assert result.success, result.errors
    coordinator = INSTANCE["run_coordinator"]
    assert coordinator["class"] == QueuedRunCoordinator.__name__
    result = process_config(
        resolve_to_config_type(QueuedRunCoordinator.config_type()), coordinator["config"]
    )
    assert result.success, result.errors
    assert not process_config(schema, INSTANCE | {"run_retriez": {}}).success


def test_the_sensor_waits_for_no_fewer_runs_than_may_go_on() -> None:
    settings = OBJECTS["ConfigMap", "resize-pipeline-settings"]["data"]
    most = INSTANCE["run_coordinator"]["config"]["max_concurrent_runs"]
    assert int(settings["SENSOR_MAX_UNFINISHED_RUNS"]) == 2 * most


def test_the_workspace_has_the_code_server_and_the_location_that_has_the_cursor() -> None:
    (ours,) = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text())["load_from"]
    (server,) = VALUES["dagsterWebserver"]["workspace"]["servers"]
    assert server == {
        "host": CODE["name"],
        "port": CODE["port"],
        "name": ours["python_module"]["location_name"],
    }
    assert CODE["dagsterApiGrpcArgs"][1] == ours["python_module"]["module_name"]
    webserver = VALUES["dagsterWebserver"]
    assert webserver["readinessProbe"]["httpGet"]["port"] == webserver["service"]["port"]


def test_history_is_where_postgres_is() -> None:
    database = VALUES["postgresql"]
    assert database["enabled"] is False
    assert ("Service", database["postgresqlHost"]) in OBJECTS
    (postgres,) = containers(OBJECTS["StatefulSet", "postgres"])
    own = {one["name"]: one.get("value") for one in postgres["env"]}
    assert own["POSTGRES_USER"] == database["postgresqlUsername"]
    assert own["POSTGRES_DB"] == database["postgresqlDatabase"]
    name = VALUES["global"]["postgresqlSecretName"]
    assert VALUES["generatePostgresqlPasswordSecret"] is False
    assert "postgresql-password" in generated(name), "the key that the chart looks for"


def test_the_chart_s_version_is_dagster_s() -> None:
    text = (FOLDER / "chart" / "dagster-values.yaml").read_text()
    assert f"--version {pinned('dagster')} " in text
    assert f"--version {pinned('dagster')} " in (DEPLOY / "README.md").read_text()


def test_the_ui_alone_has_its_password_and_does_not_start_with_the_example_s() -> None:
    webserver = VALUES["dagsterWebserver"]
    secret = {"name": "resize-pipeline-ui"}
    assert secret in webserver["envSecrets"]
    assert {"name": "UI_HOST", "value": "0.0.0.0"} in webserver["env"]  # noqa: S104
    assert secret not in [*CODE["envSecrets"], *LAUNCHER["envSecrets"]]
    assert "envSecrets" not in VALUES["dagsterDaemon"]
    with pytest.raises(ValidationError, match="ui_password"):
        Settings(_env_file=None, ui_password=generated(secret["name"])["UI_PASSWORD"])
