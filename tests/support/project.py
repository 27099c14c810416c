"""A project folder of its own with the pipeline running in it, as a user has it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from minio import Minio

from resize_pipeline.local.processes.ports import free_port
from tests.conftest import MINIO_BIN

REPOSITORY = Path(__file__).parents[2]
# Long enough for a machine that has to build MinIO first.
UP_TIMEOUT_S = 540.0
COMMAND_TIMEOUT_S = 240.0
NEVER = "0 0 1 1 *"
ROOT_USER = "administrator"
ROOT_PASSWORD = "password-of-administrator"


@dataclass
class Project:
    """A folder with the project's files, and ports of its own.

    `settings` are further environment variables; those of the instance are exported too, as
    `.env` would for Dagster's own commands.
    """

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    minio_port: int = field(default_factory=free_port)
    kafka_port: int = field(default_factory=free_port)
    ui_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("dagster.yaml", "workspace.yaml", "renditions.yaml", "pyproject.toml"):
            shutil.copy(REPOSITORY / name, self.folder)

    @property
    def ui_url(self) -> str:
        return f"http://127.0.0.1:{self.ui_port}"

    def environment(self) -> dict[str, str]:
        ours = {
            "DAGSTER_HOME": str(self.folder),
            "DAGSTER_STORAGE_DIR": str(self.folder / ".local" / "dagster"),
            "MINIO_ENDPOINT": f"http://127.0.0.1:{self.minio_port}",
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self.kafka_port}",
            "UI_PORT": str(self.ui_port),
            "MINIO_ROOT_USER": ROOT_USER,
            "MINIO_ROOT_PASSWORD": ROOT_PASSWORD,
            "COLUMNS": "200",
            # A schedule that falls due would make what a test has just removed.
            "RECONCILIATION_CRON": NEVER,
            "COMPLETENESS_CRON": NEVER,
            # A test waits for what it is about.
            "RUN_MIN_INTERVAL_S": "0",
        }
        return os.environ | ({"MINIO_BIN": MINIO_BIN} if MINIO_BIN else {}) | ours | self.settings

    def run(
        self, *command: str, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of this Python's environment in the folder: resize-pipeline or dagster."""
        program = Path(sys.executable).with_name(command[0])
        return subprocess.run(
            [program, *command[1:]],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def status(self) -> dict:
        """Give what `resize-pipeline status --json` prints."""
        done = self.run("resize-pipeline", "status", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def administrator(self) -> Minio:
        """Give a client that may do anything in MinIO."""
        return Minio(
            f"127.0.0.1:{self.minio_port}",
            access_key=ROOT_USER,
            secret_key=ROOT_PASSWORD,
            secure=False,
        )

    @contextmanager
    def running(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        """Run `resize-pipeline up` (or another command) until the block ends, then `down`."""
        arguments = command or ("up",)
        process = subprocess.Popen(
            [sys.executable, "-m", "resize_pipeline", *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            said: list[str] = []
            for line in process.stdout or ():
                said.append(line)
                if line.startswith("up after"):
                    break
            else:
                raise AssertionError("".join(said))
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=COMMAND_TIMEOUT_S)
