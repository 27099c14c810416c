"""deploy/kubernetes without the chart: its instance, rights, networks, and the pods of runs."""

from typing import Any

import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config_schema
from dagster._core.storage.dagster_run import DagsterRun
from dagster_k8s import K8sRunLauncher
from dagster_k8s.job import construct_dagster_k8s_job
from kubernetes import client

from resize_pipeline.instance.celery_launcher import LOST_MAX_RETRIES
from tests.support.deployment import APP_IMAGE, REPOSITORY
from tests.support.kubernetes_files import FOLDER, OWN_OBJECTS, PODS, SECRETS, containers, name_of
from tests.support.kubernetes_models import problems

INSTANCE: dict[str, Any] = yaml.safe_load((FOLDER / "dagster" / "dagster.yaml").read_text())
OURS: dict[str, Any] = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())
CONFIG: dict[str, Any] = INSTANCE["run_launcher"]["config"]


def pod_of_a_run(
    monkeypatch: pytest.MonkeyPatch, tags: dict[str, str] | None = None
) -> dict[str, Any]:
    """The job that Dagster's own launcher would make."""
    monkeypatch.setattr("dagster_k8s.launcher.load_kubernetes_config", lambda **_: None)
    result = process_config(resolve_to_config_type(K8sRunLauncher.config_type()), CONFIG)
    assert result.success, result.errors
    launcher = K8sRunLauncher(**dict(result.value or {}))
    context = launcher.get_container_context_for_run(
        DagsterRun(job_name="resize_images_job", tags=tags or {})
    )
    made = construct_dagster_k8s_job(
        job_config=context.get_k8s_job_config(job_image=APP_IMAGE, run_launcher=launcher),
        args=["dagster", "api", "execute_run"],
        job_name="run",
        user_defined_k8s_config=context.run_k8s_config,
        labels=CONFIG["labels"],
    )
    job = client.ApiClient().sanitize_for_serialization(made)
    assert not list(problems(job, "V1Job"))
    return job["spec"]


def test_dagster_takes_the_instance() -> None:
    result = process_config(resolve_to_config_type(dagster_instance_config_schema()), INSTANCE)
    assert result.success, result.errors


def test_the_instance_is_the_project_s_but_for_storage_launcher_and_numbers_of_runs() -> None:
    own = {"storage", "local_artifact_storage", "compute_logs", "run_launcher", "run_coordinator"}
    same = OURS.keys() - own - {"concurrency", "run_retries"}
    assert {key: INSTANCE[key] for key in same} == {key: OURS[key] for key in same}
    # A run that was lost with its pod is repeated as often as with Celery workers.
    assert INSTANCE["run_retries"] == OURS["run_retries"] | {"max_retries": LOST_MAX_RETRIES}
    runs = OURS["concurrency"]["runs"] | {
        "max_concurrent_runs": {"env": "DAGSTER_MAX_CONCURRENT_RUNS"}
    }
    assert INSTANCE["run_coordinator"]["config"] == OURS["run_coordinator"]["config"] | runs


def test_a_run_is_a_restricted_pod_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    job = pod_of_a_run(monkeypatch)
    pod = job["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == "run"
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["image"] == APP_IMAGE
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "/tmp" in {one["mountPath"] for one in container["volumeMounts"]}  # noqa: S108
    assert CONFIG["labels"].items() <= job["template"]["metadata"]["labels"].items()


def test_the_pod_of_a_run_outlives_the_run_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pod that stays Pending would wait for a node for ever, long after its run has failed."""
    deadline = pod_of_a_run(monkeypatch)["activeDeadlineSeconds"]
    assert deadline > INSTANCE["run_monitoring"]["max_runtime_seconds"]


def test_whoever_launches_a_run_does_not_choose_its_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {"dagster-k8s/config": '{"pod_spec_config": {"hostNetwork": true}}'}
    with pytest.raises(Exception, match="host_network"):
        pod_of_a_run(monkeypatch, tags)


def test_what_the_launcher_names_is_there() -> None:
    maps = {name for kind, name in OWN_OBJECTS if kind == "ConfigMap"}
    secrets = {one["name"] for one in SECRETS["secretGenerator"]}
    assert set(CONFIG["env_config_maps"]) == maps
    assert {*CONFIG["env_secrets"], CONFIG["postgres_password_secret"]} <= secrets
    assert ("ServiceAccount", CONFIG["service_account_name"]) in OWN_OBJECTS
    assert CONFIG["job_namespace"] == SECRETS["namespace"]
    assert CONFIG["job_image"] == APP_IMAGE
    listed = yaml.safe_load((FOLDER / "dagster" / "kustomization.yaml").read_text())
    (generated,) = listed["configMapGenerator"]
    assert generated["name"] == CONFIG["instance_config_map"]


def test_runs_have_what_the_code_server_has() -> None:
    (code,) = containers(OWN_OBJECTS["Deployment", "code"])
    maps = {one["configMapRef"]["name"] for one in code["envFrom"] if "configMapRef" in one}
    secrets = {one["secretRef"]["name"] for one in code["envFrom"] if "secretRef" in one}
    assert maps == set(CONFIG["env_config_maps"])
    assert secrets == set(CONFIG["env_secrets"])


@pytest.mark.parametrize("manifest", PODS, ids=name_of)
def test_only_what_launches_runs_has_a_token(manifest: dict[str, Any]) -> None:
    pod = manifest["spec"]["template"]["spec"]
    launches = manifest["metadata"]["name"] in {"daemon", "webserver"}
    assert pod["automountServiceAccountToken"] is launches
    assert ("serviceAccountName" in pod) is launches


@pytest.mark.parametrize("manifest", PODS, ids=name_of)
def test_a_pod_has_the_labels_by_which_policies_let_it_through(manifest: dict[str, Any]) -> None:
    """MINIO_ENDPOINT comes from the settings, DAGSTER_PG_HOST from Dagster's."""
    labels = manifest["spec"]["template"]["metadata"]["labels"]
    (container,) = containers(manifest)
    maps = [one.get("configMapRef", {}).get("name") for one in container.get("envFrom", [])]
    assert ("resize-pipeline/reaches-servers" in labels) is ("resize-pipeline-settings" in maps)
    assert ("resize-pipeline/reaches-history" in labels) is ("dagster-settings" in maps)


def test_the_sensor_waits_for_no_fewer_runs_than_may_go_on() -> None:
    most = OWN_OBJECTS["ConfigMap", "dagster-settings"]["data"]["DAGSTER_MAX_CONCURRENT_RUNS"]
    settings = OWN_OBJECTS["ConfigMap", "resize-pipeline-settings"]["data"]
    assert int(settings["SENSOR_MAX_UNFINISHED_RUNS"]) == 2 * int(most)


def test_the_namespace_refuses_what_is_not_restricted() -> None:
    labels = OWN_OBJECTS["Namespace", SECRETS["namespace"]]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
