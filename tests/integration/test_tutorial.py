"""docs/tutorial.md does what it says: its blocks are run as they are there."""

import re
import shlex

import pytest
from kafka import KafkaAdminClient
from minio import MinioAdmin
from minio.credentials import StaticProvider

from resize_pipeline.provisioning.arns import is_arn_of
from resize_pipeline.provisioning.target import parse_config
from tests.support.project import REPOSITORY, ROOT_PASSWORD, ROOT_USER, Project
from tests.support.standing import is_caught_up, wait_for

pytestmark = pytest.mark.integration

TUTORIAL = (REPOSITORY / "docs" / "tutorial.md").read_text()
CAUGHT_UP_TIMEOUT_S = 180.0


def blocks(language: str) -> list[str]:
    """Give the fenced blocks of a language, in the page's order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TUTORIAL, re.DOTALL | re.MULTILINE)


BY_HAND, UP, *COMMANDS = blocks("sh")
(ENVIRONMENT,) = blocks("ini")
(RENDITIONS,) = blocks("yaml")
OUTPUTS = blocks("text")


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory):
    """Give what the page's commands after `up` print, and the pipeline, which still runs."""
    project = Project(tmp_path_factory.mktemp("tutorial"))
    example = (REPOSITORY / ".env.example").read_text()
    (project.folder / ".env").write_text(example + ENVIRONMENT)
    (project.folder / "renditions.yaml").write_text(RENDITIONS)
    for script in blocks("python"):
        name = script.splitlines()[0].removeprefix("# ")
        (project.folder / name).write_text(script)
    assert shlex.split(UP) == ["resize-pipeline", "up"]
    printed: dict[str, str] = {}
    with project.running():
        for command in "".join(COMMANDS).splitlines():
            if command == "python look.py":
                wait_for(
                    project,
                    is_caught_up,
                    CAUGHT_UP_TIMEOUT_S,
                    "the uploads' runs",
                    topic="my-topic",
                )
            done = project.run(*shlex.split(command))
            assert done.returncode == 0, done.stdout + done.stderr
            printed[command] = done.stdout
        yield project, printed


def test_the_rendition_has_the_key_of_the_original_and_the_letter_a_is_rejected(walk):
    _, printed = walk

    assert printed["python look.py"] == OUTPUTS[1]
    assert "processed/deeper/path/rose.jpg" in OUTPUTS[1]
    assert "rose.jpg rejected: " in OUTPUTS[1]
    assert "lag" in printed["resize-pipeline status"]


def test_provisioning_says_what_the_page_says(walk):
    project, printed = walk

    (said,) = (text for command, text in printed.items() if "provision" in command)

    assert said.replace(f":{project.kafka_port} ", ":9092 ") == OUTPUTS[0]


def test_configuration_has_made_what_the_tutorial_makes_by_hand(walk):
    project, _ = walk
    by_hand = [shlex.split(line) for line in BY_HAND.splitlines()]
    minio = project.administrator()
    checked = set()
    for words in by_hand:
        match words:
            case ["kafka-topics.sh", "--create", "--topic", topic, "--partitions", count, *_]:
                admin = KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{project.kafka_port}")
                (found,) = admin.describe_topics([topic])
                admin.close()
                assert len(found["partitions"]) == int(count)
            case ["mc", "mb", path]:
                assert minio.bucket_exists(path.removeprefix("myminio/"))
            case ["mc", "admin", "config", "set", _, target, brokers, topic]:
                assert brokers == "brokers=127.0.0.1:9092"
                values = target_values(project, target)
                assert values["brokers"] == f"127.0.0.1:{project.kafka_port}"
                assert f"topic={values['topic']}" == topic
            case ["mc", "event", "add", path, arn, "--suffix", suffix]:
                rules = minio.get_bucket_notification(path.removeprefix("myminio/"))
                assert rules
                assert suffix in {
                    rule.suffix_filter_rule.value
                    for rule in rules.queue_config_list
                    if rule.suffix_filter_rule and is_arn_of(rule.queue or "", arn.split(":")[4])
                }
            case ["mc", "admin", "service", "restart", _]:
                pass
            case _:
                raise AssertionError(words)
        checked.add(" ".join(words[:3]))
    assert {"kafka-topics.sh --create --topic", "mc admin config", "mc event add"} <= checked


def target_values(project: Project, target: str) -> dict[str, str]:
    subsystem, name = target.split(":")
    admin = MinioAdmin(
        endpoint=f"127.0.0.1:{project.minio_port}",
        credentials=StaticProvider(ROOT_USER, ROOT_PASSWORD),
        secure=False,
    )
    return parse_config(admin.config_get(subsystem))[name].values


def test_the_page_names_files_and_names_that_are_there():
    for file in re.findall(r"`(resize_pipeline/[\w/]+\.py)`", TUTORIAL):
        assert (REPOSITORY / file).is_file()
    assert "(renditions.md#your-own-step)" in TUTORIAL
    assert "\n## Your own step\n" in (REPOSITORY / "docs" / "renditions.md").read_text()
