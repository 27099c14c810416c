"""The compose file, really up: pictures are rendered, also after each service was killed."""

import json
import subprocess
import sys
import uuid
from collections.abc import Callable

import pytest

from tests.containers.compose import Deployment
from tests.support.deployment import SERVICES

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

PICTURES = 5
RUNNING = [name for name, one in SERVICES.items() if one["restart"] != "no"]

UPLOAD = """
import io, sys, time
from minio import Minio
from PIL import Image
user, password, prefix, count = sys.argv[1:]
client = Minio("127.0.0.1:9000", user, password, secure=False)
file = io.BytesIO()
Image.effect_noise((900, 700), 60).convert("RGB").save(file, "JPEG")
names = {f"{prefix}/{number}.jpg" for number in range(int(count))}
for name in names:
    client.put_object("images", name, io.BytesIO(file.getvalue()), len(file.getvalue()))
buckets = ("processed", "processed-medium", "processed-thumbnail")
waiting = {(bucket, name) for bucket in buckets for name in names}
deadline = time.monotonic() + 200
while waiting and time.monotonic() < deadline:
    time.sleep(1)
    for bucket in {bucket for bucket, _ in waiting}:
        for one in client.list_objects(bucket, prefix=prefix, recursive=True):
            waiting.discard((bucket, one.object_name))
print("waiting for", len(waiting))
"""

ASK = """
import base64, sys, urllib.error, urllib.request
request = urllib.request.Request("http://127.0.0.1:3000/runs")
if len(sys.argv) > 1:
    login = base64.b64encode(f"someone:{sys.argv[1]}".encode()).decode()
    request.add_header("Authorization", f"Basic {login}")
try:
    print(urllib.request.urlopen(request, timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


@pytest.fixture
def render(deployment: Deployment, secret_values: dict[str, str]) -> Callable[[], None]:
    """Upload pictures from outside of the containers, and wait for all of their renditions."""

    def upload() -> None:
        login = (secret_values["MINIO_ROOT_USER"], secret_values["MINIO_ROOT_PASSWORD"])
        answer = outside(deployment, UPLOAD, *login, uuid.uuid4().hex[:8], str(PICTURES))
        assert answer == "waiting for 0", deployment.logs("code") + deployment.logs("daemon")

    return upload


def outside(deployment: Deployment, script: str, *arguments: str) -> str:
    """Run a script as a program on the machine that publishes the ports."""
    done = subprocess.run(
        [
            *("nsenter", f"--net=/run/netns/{deployment.network}"),
            *(sys.executable, "-c", script, *arguments),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_pictures_are_rendered(render: Callable[[], None]) -> None:
    render()


def test_the_user_interface_asks_for_its_password(
    deployment: Deployment, secret_values: dict[str, str]
) -> None:
    assert outside(deployment, ASK) == "401"
    assert outside(deployment, ASK, "wrong-password-here") == "401"
    assert outside(deployment, ASK, secret_values["UI_PASSWORD"]) == "200"


def test_provisioning_again_changes_nothing(deployment: Deployment) -> None:
    before = deployment.logs("provision")
    deployment.podman("start", deployment.container("provision"))
    assert deployment.podman("wait", deployment.container("provision")).strip() == "0"
    again = deployment.logs("provision").removeprefix(before).splitlines()
    assert again
    assert all(line.startswith("ok ") for line in again)


def test_the_command_line_answers_in_the_container(deployment: Deployment) -> None:
    answer = deployment.podman(
        "exec", deployment.container("code"), "resize-pipeline", "status", "--json"
    )
    assert json.loads(answer)["lag"] is not None


@pytest.mark.parametrize("service", RUNNING)
def test_a_killed_service_is_back_and_pictures_are_rendered(
    deployment: Deployment, render: Callable[[], None], service: str
) -> None:
    deployment.kill(service)
    render()
    for one in RUNNING:
        deployment.wait_healthy(one)


def test_no_service_can_write_its_image_or_has_a_capability(deployment: Deployment) -> None:
    for service in ("code", "webserver", "daemon"):
        status = deployment.podman("exec", deployment.container(service), "cat", "/proc/1/status")
        found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0
        assert found["NoNewPrivs"].strip() == "1"
        script = "open('/opt/dagster/dagster_home/mine', 'w')"
        command = ("podman", "exec", deployment.container(service), "python", "-c", script)
        refused = deployment.engine.run(command, network=deployment.network, check=False)
        assert "Read-only file system" in refused, f"{service}: {refused}"
