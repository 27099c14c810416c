"""The manifests of deploy/kubernetes, by the kustomizations that list them."""

from typing import Any

import yaml

from tests.support.deployment import DEPLOY

FOLDER = DEPLOY / "kubernetes"
STRIMZI = "kafka.strimzi.io/v1"
SECRETS: dict[str, Any] = yaml.safe_load((FOLDER / "secrets" / "kustomization.yaml").read_text())


def manifests(folder: str) -> list[dict[str, Any]]:
    """Return what the kustomization in a folder lists as files of its own."""
    listed = yaml.safe_load((FOLDER / folder / "kustomization.yaml").read_text())["resources"]
    files = [FOLDER / folder / name for name in listed if name.endswith(".yaml")]
    return [one for file in files for one in yaml.safe_load_all(file.read_text())]


def by_name(found: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Index manifests by kind and name."""
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


OWN = manifests("servers") + manifests("kafka") + manifests("dagster")
OWN_OBJECTS = by_name(OWN)
PODS = [one for one in OWN if "template" in one.get("spec", {})]


def containers(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the containers of what makes pods."""
    return manifest["spec"]["template"]["spec"]["containers"]


def name_of(manifest: dict[str, Any]) -> str:
    """Name a manifest for people."""
    return f"{manifest['kind']}-{manifest['metadata']['name']}"
