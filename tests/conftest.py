"""What all tests share: an environment of their own, and one real stack for those that want it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from resize_pipeline import terminal
from resize_pipeline.local.processes.ports import free_port
from resize_pipeline.local.stack import running_stack
from resize_pipeline.settings import Settings

ROOT_USER = "root-of-tests"
ROOT_PASSWORD = "password-of-root"

# At import, for some modules read the settings when they are imported. MINIO_BIN says where a
# program is and not how the project behaves: it is handed to the stack, which has to have one.
MINIO_BIN = os.environ.get("MINIO_BIN")
for name in Settings.model_fields:
    os.environ.pop(name.upper(), None)


# How long an example takes is a matter of the machine.
settings.register_profile("any-speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-speed")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would all that
# they start, some of which they end by it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run each test in an empty folder: no `.env` and no `.local` of the developer."""
    monkeypatch.chdir(tmp_path)
    yield
    # A test of the command line in this process leaves consoles on its own captured streams.
    terminal._unescaped.clear()
    terminal.errors._file = None
    # Loading the definitions exports secrets, which are none of the next test's.
    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Run one real Kafka and one real MinIO for the whole session, and give their settings.

    The keys are those of MinIO's root. Tests share it: use buckets and topics of your own.
    """
    settings = Settings(
        minio_endpoint=f"http://127.0.0.1:{free_port()}",
        minio_access_key=ROOT_USER,
        minio_secret_key=ROOT_PASSWORD,
        minio_root_user=ROOT_USER,
        minio_root_password=ROOT_PASSWORD,
        kafka_bootstrap_servers=f"127.0.0.1:{free_port()}",
        # A test waits for what it is about.
        run_min_interval_s=0.0,
        local_dir=tmp_path_factory.mktemp("stack"),
        minio_bin=MINIO_BIN,
    )
    with running_stack(settings):
        yield settings


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Project"]:  # noqa: F821
    """Run one whole pipeline for the session, as `resize-pipeline up` does, Dagster included.

    Tests share it: use keys of your own, below a prefix.
    """
    from tests.support.project import Project

    project = Project(tmp_path_factory.mktemp("project"))
    with project.running():
        yield project
