"""The compose file, really up: pictures are rendered, also after each service was killed."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.containers.compose import Deployment
from tests.containers.pictures import Outside
from tests.support.deployment import DEPLOY, SERVICES

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

RUNNING = [
    name for name, one in SERVICES.items() if one["restart"] != "no" and "profiles" not in one
]

ASK = """
import base64, json, sys, urllib.error, urllib.request
password, headers, body = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3].encode() or None
request = urllib.request.Request("http://127.0.0.1:3000/" + ("graphql" if body else "runs"), body)
if password:
    login = base64.b64encode(f"someone:{password}".encode()).decode()
    request.add_header("Authorization", f"Basic {login}")
for name, value in headers.items():
    request.add_header(name, value)
try:
    print(urllib.request.urlopen(request, timeout=30).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
QUERY = '{"query": "{ version }"}'
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def outside(deployment: Deployment, secrets_folder: Path) -> Outside:
    return Outside(deployment, secrets_folder)


def test_pictures_are_rendered(outside: Outside) -> None:
    found = outside.upload()
    assert (found["lost"], found["stale"]) == (0, 0), outside.deployment.logs("code")


def test_a_picture_s_way_by_the_lines_of_the_readme(outside: Outside, tmp_path: Path) -> None:
    text = (DEPLOY / "README.md").read_text()
    [lines] = re.findall(r"a picture's way from outside:\n\n((?:    .*\n|\n)+)", text)
    (tmp_path / "secrets").symlink_to(outside.secrets)
    Image.effect_noise((1600, 1200), 60).convert("RGB").save(tmp_path / "photo.jpg")
    done = subprocess.run(
        outside.command("sh", "-euc", re.sub("^    ", "", lines, flags=re.MULTILINE)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert max(Image.open(tmp_path / "thumbnail.jpg").size) == 160


def test_the_user_interface_asks_for_its_password_and_obeys_no_other_page(
    outside: Outside,
) -> None:
    password = outside.secret("ui_password")
    for wrong in ("", "wrong-password-here"):
        assert outside.python(ASK, wrong, "{}", "") == "401"
    assert outside.python(ASK, password, "{}", "") == "200"
    assert outside.python(ASK, password, json.dumps(JSON), QUERY) == "200"
    for headers in (
        JSON | {"Origin": "http://elsewhere.example"},
        JSON | {"Host": "elsewhere.example"},
        {"Content-Type": "text/plain"},
    ):
        answer = outside.python(ASK, password, json.dumps(headers), QUERY)
        assert answer in {"400", "403", "415", "421"}, f"{headers}: {answer}"


def test_provisioning_again_changes_nothing(deployment: Deployment) -> None:
    before = deployment.logs("provision")
    deployment.podman("start", deployment.container("provision"))
    assert deployment.podman("wait", deployment.container("provision")).strip() == "0"
    again = deployment.logs("provision").removeprefix(before).splitlines()
    assert again
    assert all(line.startswith("ok ") for line in again)


def test_the_command_lines_answer_in_the_container(deployment: Deployment) -> None:
    code = deployment.container("code")
    answer = deployment.podman("exec", code, "resize-pipeline", "status", "--json")
    assert json.loads(answer)["lag"] is not None
    assert "Run: " in deployment.podman("exec", code, "dagster", "run", "list", "--limit", "1")


def test_no_secret_is_where_containers_are_inspected(outside: Outside) -> None:
    assert_no_secret_is_inspected(outside)


def assert_no_secret_is_inspected(outside: Outside) -> None:
    """Check what an inspection, a list of processes and the logs show of each container."""
    deployment = outside.deployment
    names = ("minio_root_password", "minio_secret_key", "ui_password", "dagster_pg_password")
    values = {name: outside.secret(name) for name in names}
    values["celery_broker_url"] = outside.secret("celery_broker_url").split(":")[2].split("@")[0]
    for service in deployment.services:
        for container in deployment.containers(service):
            shown = deployment.podman("inspect", container) + deployment.podman("logs", container)
            if service in deployment.running:
                shown += deployment.podman(
                    "exec", container, "sh", "-c", "cat /proc/[0-9]*/cmdline"
                )
            assert container in shown
            assert [name for name, value in values.items() if value in shown] == [], container


@pytest.mark.parametrize("service", RUNNING)
def test_a_killed_service_is_back_and_no_picture_is_lost(outside: Outside, service: str) -> None:
    outside.kill(service, is_executing=service == "code")


def test_no_service_can_write_its_image_or_has_a_capability(deployment: Deployment) -> None:
    for service in ("code", "webserver", "daemon"):
        assert_is_confined(deployment, service)


def assert_is_confined(deployment: Deployment, service: str) -> None:
    """Check that a service has no capability and can't write its image."""
    status = deployment.podman("exec", deployment.container(service), "cat", "/proc/1/status")
    found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0
    assert found["NoNewPrivs"].strip() == "1"
    script = "open('/opt/dagster/dagster_home/mine', 'w')"
    command = ("podman", "exec", deployment.container(service), "python", "-c", script)
    refused = deployment.engine.run(command, network=deployment.network, check=False)
    assert "Read-only file system" in refused, f"{service}: {refused}"


@pytest.mark.parametrize(
    ("service", "file", "said"),
    [
        ("minio", ("minio_root_password", None, 0), "is missing, unreadable or empty"),
        ("minio", ("minio_root_password", "", 0o444), "is missing, unreadable or empty"),
        ("minio", ("minio_root_user", " \n", 0o444), "is missing, unreadable or empty"),
        ("minio", ("minio_root_user", "someone", 0o400), "is missing, unreadable or empty"),
        ("provision", ("minio_secret_key", "", 0o444), "minio_secret_key is empty: write"),
        ("provision", ("minio_secret_key", "one\ntwo\n", 0o444), "has several lines"),
        ("provision", ("minio_secret_key", "x" * 20, 0o400), "can't be read by user 10001"),
        (
            "valkey",
            ("celery_broker_url", "redis://:@valkey:6379/0\n", 0o444),
            "must be redis://:PASS",
        ),
    ],
)
def test_what_is_no_secret_is_refused_by_its_path(
    outside: Outside,
    tmp_path: Path,
    service: str,
    file: tuple[str, str | None, int],
    said: str,
) -> None:
    name, content, mode = file
    folder = tmp_path / "secrets"
    shutil.copytree(outside.secrets, folder)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
        (folder / name).chmod(mode)
    one = SERVICES[service]
    mounts = [
        f"--volume={path}:/run/secrets/{path.name}:ro"
        for path in folder.iterdir()
        if path.name in one["secrets"]
    ]
    command = ("podman", "run", "--rm", "--network=none", *mounts, "--env=SECRETS_DIR=/run/secrets")
    user = (f"--user={one['user']}",) if "user" in one else ()
    words = [word.replace("$$", "$") for word in one["command"]]
    answer = outside.deployment.engine.run(
        (*command, *user, one["image"], *words), check=False, timeout=120
    )
    assert said in answer
    assert "Traceback" not in answer
