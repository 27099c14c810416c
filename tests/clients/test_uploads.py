"""Uploads by the clients that people use: each object gets its renditions, whatever its key."""

import io
import json
import os
import random
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

import pytest
from PIL import Image

from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.renditions.objects import is_current
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.settings import Settings
from tests.support.letters import current_letters
from tests.support.project import REPOSITORY, ROOT_PASSWORD, ROOT_USER, Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.clients, pytest.mark.timeout(1800)]

INSTALLED = REPOSITORY / ".local" / "clients" / "bin"
RENDERED_TIMEOUT_S = 900.0
CLIENT_TIMEOUT_S = 600.0
NAMES = [
    "plain.jpg",
    "a space.jpg",
    " at both ends .png",
    "plus+plus.jpg",
    "100%.jpg",
    "percent%2Fencoded %2B+%20.png",
    "Grüße/日本/🌹.JPG",
    "e\u0301 and \u00e9.jpeg",
    "UPPER.JPEG",
    "Mixed.JpG",
    "a&b=c;d#e?f,g.png",
    "(round) [square] {curly} !$@~.gif",
    'quote\'s "double".webp',
    "..two dots.jpg",
]
"""Names that clients encode in different ways, and that a local file can have."""
MANY = 2000


def program(name: str) -> str:
    """Return the path of a client."""
    found = shutil.which(name, path=f"{INSTALLED}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"NOT TESTED: there is no {name}; `make test-clients` installs it")
    return found


def run(*command: str | Path, **environment: str) -> str:
    """Run a client as the administrator of MinIO, and return what it prints."""
    keys = {"AWS_ACCESS_KEY_ID": ROOT_USER, "AWS_SECRET_ACCESS_KEY": ROOT_PASSWORD}
    # Neither settings nor services of this machine have a say.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("AWS_", "RCLONE_")) and "PROXY" not in name.upper()
    }
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    done = subprocess.run(
        command,
        env=inherited | keys | nowhere | {"AWS_EC2_METADATA_DISABLED": "true"} | environment,
        capture_output=True,
        text=True,
        timeout=CLIENT_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def picture(width: int, height: int, seed: int, form: str = "JPEG") -> bytes:
    noise = random.Random(seed).randbytes(width * height * 3)  # noqa: S311
    file = io.BytesIO()
    Image.frombytes("RGB", (width, height), noise).save(file, form)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of pictures, one of them so large that each client sends it in parts."""
    files = tmp_path / "pictures"
    for seed, name in enumerate(NAMES):
        path = files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        form = {"jpg": "JPEG", "jpeg": "JPEG"}.get(path.suffix[1:].lower(), path.suffix[1:].upper())
        path.write_bytes(picture(64, 48, seed, form))
    large = picture(2200, 1600, 1, "PNG")
    assert len(large) > 9 * 2**20, "the AWS command line sends parts from 8 MiB on"
    (files / "large +.png").write_bytes(large)
    return files


def files_of(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


class Store:
    """The running pipeline's buckets and dead letters."""

    def __init__(self, pipeline: Project) -> None:
        self.settings = Settings(
            minio_endpoint=f"http://127.0.0.1:{pipeline.minio_port}",
            kafka_bootstrap_servers=f"127.0.0.1:{pipeline.kafka_port}",
        )
        self.minio = MinioResource.from_settings(
            self.settings, access_key=ROOT_USER, secret_key=ROOT_PASSWORD
        )
        self.bucket = self.settings.source_bucket
        self.specs = load_renditions(pipeline.folder / "renditions.yaml", self.bucket)

    def missing(self, prefix: str) -> list[str]:
        """Return which renditions of the objects below a prefix are not current."""
        source = {one.key: one for one in self.minio.list_objects(self.bucket, prefix)}
        missing: list[str] = []
        for spec in self.specs:
            listed = self.minio.list_objects(spec.bucket, spec.key_for(prefix), with_metadata=True)
            found = {one.key: one for one in listed}
            missing += [
                f"{spec.name} of {key}"
                for key, info in source.items()
                if not is_current(found.get(spec.key_for(key)), info, spec)
            ]
        return missing

    def counts(self, prefix: str = "") -> dict[str, int]:
        """Return the number of objects below a prefix in the source and for each rendition."""
        source = sum(1 for _ in self.minio.list_objects(self.bucket, prefix))
        return {"source": source} | {
            spec.name: sum(1 for _ in self.minio.list_objects(spec.bucket, spec.key_for(prefix)))
            for spec in self.specs
        }

    def expect(self, prefix: str, keys: Collection[str]) -> None:
        """Wait until the objects below a prefix are these, each with all its renditions."""
        listed = {one.key for one in self.minio.list_objects(self.bucket, prefix)}
        assert listed == set(keys)
        try:
            wait_until(lambda: not self.missing(prefix), RENDERED_TIMEOUT_S, "all renditions")
        except AssertionError:
            missing = self.missing(prefix)
            raise AssertionError(f"{len(missing)} missing: {missing[:20]}") from None
        assert set(self.counts(prefix).values()) == {len(set(keys))}


@pytest.fixture(scope="session")
def store(pipeline: Project) -> Store:
    return Store(pipeline)


def test_boto3(store: Store, folder: Path) -> None:
    """By put_object, in parts, presigned PUT, presigned POST and copy."""
    script = Path(__file__).with_name("upload_boto3.py")
    python = INSTALLED / "python"
    if not python.exists():
        pytest.skip("NOT TESTED: there is no boto3; `make test-clients` installs it")
    arguments = (store.settings.minio_endpoint, store.bucket, "boto3/", folder)
    keys = json.loads(run(python, script, *arguments))
    assert len(keys) == 5 * (len(NAMES) + 1) + 1
    store.expect("boto3/", keys)


def test_aws(store: Store, folder: Path) -> None:
    """By `s3 cp`, `s3 sync` and `s3api put-object`."""
    aws = (program("aws"), "--endpoint-url", store.settings.minio_endpoint, "--region", "us-east-1")
    where = f"s3://{store.bucket}/aws"
    run(*aws, "s3", "cp", "--recursive", "--only-show-errors", folder, f"{where}/cp/")
    run(*aws, "s3", "sync", "--only-show-errors", folder, f"{where}/sync +%/")
    keys = [f"aws/{way}/{name}" for way in ("cp", "sync +%") for name in files_of(folder)]
    for name in NAMES:
        keys.append(f"aws/api/{name}")
        run(
            *(*aws, "s3api", "put-object", "--bucket", store.bucket),
            *("--key", keys[-1], "--body", folder / name),
        )
    store.expect("aws/", keys)


def test_s3cmd(store: Store, folder: Path) -> None:
    """By `put` and `sync`, in parts of 5 MiB."""
    host = store.settings.minio_endpoint.removeprefix("http://")
    s3cmd = (
        *(program("s3cmd"), "--config", os.devnull, "--no-ssl", "--quiet"),
        *("--access_key", ROOT_USER, "--secret_key", ROOT_PASSWORD, "--region", "us-east-1"),
        *("--host", host, "--host-bucket", host, "--multipart-chunk-size-mb", "5"),
    )
    for way in ("put --recursive", "sync"):
        where = f"s3://{store.bucket}/s3cmd/{way}/"
        run(*s3cmd, *way.split(), f"{folder}/", where)
    keys = [
        f"s3cmd/{way}/{name}" for way in ("put --recursive", "sync") for name in files_of(folder)
    ]
    store.expect("s3cmd/", keys)


def test_rclone(store: Store, folder: Path) -> None:
    """By `copy` of 2,000 files with 32 transfers at a time."""
    many = folder / "many"
    many.mkdir()
    for number in range(MANY - len(files_of(folder))):
        name = NAMES[number % len(NAMES)].replace("/", "-").rpartition(".")[0]
        (many / f"{number:04} {name}.jpg").write_bytes(picture(24, 18, number))
    assert len(files_of(folder)) == MANY
    run(
        *(program("rclone"), "copy", "--transfers", "32", "--checkers", "16"),
        *("--s3-chunk-size", "5Mi", "--s3-upload-cutoff", "5Mi", folder),
        f"stack:{store.bucket}/rclone",
        RCLONE_CONFIG=os.devnull,
        RCLONE_CONFIG_STACK_TYPE="s3",
        RCLONE_CONFIG_STACK_PROVIDER="Minio",
        RCLONE_CONFIG_STACK_ENDPOINT=store.settings.minio_endpoint,
        RCLONE_CONFIG_STACK_ACCESS_KEY_ID=ROOT_USER,
        RCLONE_CONFIG_STACK_SECRET_ACCESS_KEY=ROOT_PASSWORD,
    )
    store.expect("rclone/", [f"rclone/{name}" for name in files_of(folder)])


def test_counts_are_equal_in_the_end(store: Store) -> None:
    """Of all clients together, with no dead letter."""
    counts = store.counts()
    assert set(counts.values()) == {counts["source"]}, counts
    kafka = KafkaResource.from_settings(store.settings)
    assert not current_letters(kafka, store.settings.dead_letter_topic)
