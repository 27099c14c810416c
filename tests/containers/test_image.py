"""The image: what is in it, and that it works with next to no rights."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.containers.engine import Engine

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

MEBIBYTES_MAX = 650
STRANGER = "20000:20000"
CONFINED = (
    *("--rm", "--network=none", "--read-only", "--cap-drop=ALL", f"--user={STRANGER}"),
    "--security-opt=no-new-privileges",
)
COMPILERS = ("cc", "gcc", "g++", "clang", "ld", "as", "make", "go", "cargo", "rustc", "uv", "git")


@pytest.fixture(scope="module")
def inspected(engine: Engine, app_image: str) -> dict[str, Any]:
    """What podman says of the image."""
    [found] = json.loads(engine.podman("inspect", app_image))
    return found


def test_its_user_is_not_root_and_its_size_is_bounded(inspected: dict[str, Any]) -> None:
    assert inspected["User"] == "10001:10001"
    assert inspected["Size"] < MEBIBYTES_MAX * 2**20


def test_its_configuration_and_history_hold_no_secret(inspected: dict[str, Any]) -> None:
    environment = dict(line.split("=", 1) for line in inspected["Config"]["Env"])
    assert not [name for name in environment if "KEY" in name or "PASSWORD" in name]
    history = json.dumps(inspected["History"])
    assert "PASSWORD=" not in history
    assert "SECRET" not in history


def test_it_holds_no_compiler_no_checkout_and_no_test(engine: Engine, app_image: str) -> None:
    script = (
        f"import os, shutil; print([c for c in {COMPILERS} if shutil.which(c)], "
        "sorted(os.listdir('/app')))"
    )
    found = engine.podman("run", *CONFINED, app_image, "python", "-c", script)
    assert found.split("\n")[0] == "[] ['.local', '.venv', 'renditions.yaml']"


def test_a_stranger_renders_on_a_read_only_file_system(
    engine: Engine, app_image: str, tmp_path: Path
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    target.mkdir()
    target.chmod(0o777)
    tmp_path.chmod(0o755)
    Image.effect_noise((1600, 1200), 60).convert("RGB").save(source / "photo.jpg")
    engine.podman(
        *("run", *CONFINED, f"--volume={source}:/in:ro", f"--volume={target}:/out"),
        *(app_image, "resize-pipeline", "resize", "/in/photo.jpg", "--out", "/out"),
    )
    made = {path.parent.name: Image.open(path).size for path in target.rglob("*.jpg")}
    assert sorted(max(size) for size in made.values()) == [160, 640, 1280]


def test_a_traceback_is_no_answer_to_a_missing_server(engine: Engine, app_image: str) -> None:
    command = ("podman", "run", *CONFINED, app_image, "resize-pipeline", "provision")
    answer = engine.run(command, check=False)
    assert "Traceback" not in answer
    assert "resize-pipeline: " in answer
