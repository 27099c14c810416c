"""What another account of the host can do with a running pipeline."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio
from minio.error import S3Error

from tests.integration.test_celery import WorkersProject
from tests.support.pictures import detailed, encoded
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.attacks,
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a program as another account"),
]

NOBODY = 65534


@pytest.fixture(scope="module", params=[Project, WorkersProject])
def project(request: pytest.FixtureRequest) -> Iterator[Project]:
    """A pipeline in a folder that everybody may enter, with a password that `up` generated.

    With workers, PostgreSQL runs as another user, who must not be let into `.local`, either.
    """
    # Not in pytest's folder, which each pytest that starts closes.
    place = Path(tempfile.mkdtemp(prefix="other-account-"))
    folder = place / "project"
    # An earlier version left folders and files that everybody may read.
    (folder / ".local" / "dagster").mkdir(parents=True)
    (folder / ".local" / "dagster" / "old.db").write_text("history")
    scratch = folder / "scratch"
    scratch.mkdir(0o755)
    project = request.param(folder)
    project.settings["TMPDIR"] = str(scratch)
    # An empty variable counts as unset.
    project.settings["MINIO_ROOT_PASSWORD"] = ""
    place.chmod(0o755)
    folder.chmod(0o755)
    with project.running("up", *(["--workers", "1"] if request.param is WorkersProject else [])):
        root = Minio(
            f"127.0.0.1:{project.minio_port}",
            access_key="administrator",
            secret_key=password(project),
            secure=False,
        )
        data = encoded(detailed(60, 40), "JPEG")
        path = folder / "a.jpg"
        path.write_bytes(data)
        root.fput_object("images", "a.jpg", str(path))
        wait_until(lambda: list(root.list_objects("processed")), 60, "a rendition")
        yield project
    shutil.rmtree(place)


def password(project: Project) -> str:
    lines = (project.folder / ".env").read_text().splitlines()
    (line,) = [one for one in lines if one.startswith("MINIO_ROOT_PASSWORD=")]
    return line.partition("=")[2]


def as_nobody(command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sh", "-c", command],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "place",
    [
        ".local/credentials.env",
        ".local/dagster/old.db",
        ".local/kafka/server.properties",
        ".local/logs/minio.log",
        ".local/minio/.minio.sys/format.json",
        ".local/stack.json",
        ".env",
    ],
)
def test_it_reads_no_file(project: Project, place: str) -> None:
    path = project.folder / place
    assert path.exists()
    done = as_nobody(f"cat '{path}'")
    assert done.returncode != 0
    assert b"Permission denied" in done.stderr
    assert done.stdout == b""


def test_it_reads_no_file_wherever_it_is(project: Project) -> None:
    command = f"find '{project.folder}' -readable -o -writable"
    found = as_nobody(command).stdout.decode().splitlines()
    # It may enter the project's folder.
    assert str(project.folder / "renditions.yaml") in found
    scratch = project.folder / "scratch"
    assert [*scratch.iterdir()]
    private = (f"{project.folder}/.local", f"{project.folder}/.env", f"{scratch}/")
    assert [path for path in found if path.startswith(private)] == []


def test_nothing_has_permissions_for_others(project: Project) -> None:
    """A backup or a move keeps the permissions below a folder that nobody may enter."""
    local = project.folder / ".local"
    found = {path for path in local.rglob("*") if not path.is_symlink()}
    history = "postgres/data" if isinstance(project, WorkersProject) else "dagster/history/runs.db"
    assert {local / history, local / "kafka" / "data", local / "minio" / "images"} <= found
    assert {path for path in found if path.exists() and path.stat().st_mode & 0o077} == set()


def test_it_lists_and_writes_nothing_in_local_dir(project: Project) -> None:
    local = project.folder / ".local"
    assert as_nobody(f"ls '{local}'").stdout == b""
    assert as_nobody(f"touch '{local}/x' '{local}/minio/x' '{local}/kafka/x'").returncode != 0
    assert not list(local.rglob("x"))
    assert stat.S_IMODE(local.stat().st_mode) == 0o700
    assert stat.S_IMODE((project.folder / ".env").stat().st_mode) == 0o600
    for one in local.iterdir():
        assert stat.S_IMODE(one.stat().st_mode) & 0o077 == 0, one


def test_it_reads_no_environment(project: Project) -> None:
    pids = [
        one.name
        for one in Path("/proc").iterdir()
        if one.name.isdigit() and str(project.folder) in _cwd(one)
    ]
    assert len(pids) >= 5
    for pid in pids:
        assert as_nobody(f"cat /proc/{pid}/environ").stdout == b""


def _cwd(process: Path) -> str:
    try:
        return str((process / "cwd").readlink())
    except OSError:
        return ""


@pytest.mark.parametrize(
    "keys",
    [
        ("minio", "minio123"),
        ("minioadmin", "minioadmin"),
        ("administrator", "minio123"),
        ("administrator", ""),
    ],
)
def test_it_does_not_know_the_administrators_password(
    project: Project, keys: tuple[str, str]
) -> None:
    client = Minio(
        f"127.0.0.1:{project.minio_port}",
        access_key=keys[0],
        secret_key=keys[1] or "x",
        secure=False,
    )
    with pytest.raises(S3Error) as refused:
        client.list_buckets()
    assert refused.value.code in {"InvalidAccessKeyId", "SignatureDoesNotMatch"}
    assert len(password(project)) >= 32


def test_the_password_is_no_argument_of_a_process(project: Project) -> None:
    secret = password(project).encode()
    for one in Path("/proc").iterdir():
        if one.name.isdigit():
            try:
                assert secret not in (one / "cmdline").read_bytes()
            except OSError:
                continue
