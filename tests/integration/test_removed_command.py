"""`resize-pipeline removed-renditions` over a real MinIO and Dagster's history."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from minio.commonconfig import CopySource
from pydantic import SecretStr

from resize_pipeline.cli import main
from resize_pipeline.defs.jobs import run_config
from resize_pipeline.provisioning.provision import provision
from resize_pipeline.settings import Settings
from tests.dagster.fakes import InProcessRenderer
from tests.integration.test_pipeline import Pipeline
from tests.support.pictures import detailed, encoded
from tests.support.project import Project
from tests.support.standing import instance_of

pytestmark = pytest.mark.integration

PICTURES = ["rose.png", "deeper/path/a b+c.png"]


@pytest.fixture
def pipeline(stack: Settings, tmp_path: Path) -> Iterator[Pipeline]:
    with instance_of(Project(tmp_path)) as instance:
        yield Pipeline(stack, tmp_path, instance)


def render(pipeline: Pipeline) -> None:
    pipeline.configure()
    assert pipeline.definitions.resources
    pipeline.definitions.resources[pipeline.names.of("renderer")] = InProcessRenderer()
    partitions = pipeline.definitions.get_job_def(pipeline.names.job).partitions_def
    assert partitions
    pipeline.run(
        dg.RunRequest(
            partition_key=partitions.get_last_partition_key(),
            run_config=run_config(pipeline.names, objects=PICTURES),
        )
    )


def command(pipeline: Pipeline, *arguments: str, **settings: SecretStr | None) -> int:
    """Run a command in this process and return its exit code."""
    changed = pipeline.settings.model_copy(update=settings)
    environment = changed.to_environment() | {
        "COLUMNS": "200",
        "DAGSTER_HOME": str(Path.cwd()),
        "DAGSTER_STORAGE_DIR": str(Path.cwd() / ".local" / "dagster"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr("sys.argv", ["resize-pipeline", "removed-renditions", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


def test_objects_of_a_removed_rendition_go_on_request_only(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in PICTURES:
        pipeline.put(key, encoded(detailed(80, 40), "PNG"))
    render(pipeline)
    small = pipeline.small
    sizes = [one.size for one in pipeline.root.list_objects(small, recursive=True)]
    assert len(sizes) == 2
    # A stranger's object in the same place, and a copy of a rendition in another.
    pipeline.root.put_object(small, "thumbs/theirs.png", io.BytesIO(b"x"), 1)
    pipeline.root.copy_object(small, "copies/rose.png", CopySource(small, "thumbs/rose.png"))

    assert command(pipeline, "list") == 0
    assert capsys.readouterr().out == "no removed renditions\n"
    assert command(pipeline, "delete", "small") == 1
    assert "no removed rendition 'small'" in capsys.readouterr().err

    pipeline.settings.renditions_file.write_text(
        "renditions:\n"
        f"  large: {{width: 100, height: 100, bucket: {pipeline.large}}}\n"
        f"  tiny: {{width: 8, height: 8, bucket: {small}, prefix: thumbs/tiny/}}\n"
    )
    user = pipeline.minio_as_the_pipeline()
    keys = {
        "minio_access_key": SecretStr(user.access_key),
        "minio_secret_key": SecretStr(user.secret_key),
    }
    provision(pipeline.settings.model_copy(update=keys))
    render(pipeline)
    before = pipeline.keys(small), pipeline.keys(pipeline.large)
    assert len(before[0]) == 6

    assert command(pipeline, "list", "--json") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found == [
        {
            "rendition": "small",
            "bucket": small,
            "prefix": "thumbs/",
            "objects": 2,
            "bytes": sum(sizes),
            "moved": False,
        }
    ]
    assert command(pipeline, "list") == 0
    assert f"small      s3://{small}/thumbs/  2  " in capsys.readouterr().out

    # The pipeline's own user may do nothing any more with what is no rendition's.
    wrong = {"minio_root_password": SecretStr("another-password")}
    unset = {"minio_root_password": None}
    for arguments, password in ((["list"], wrong), (["delete", "small"], wrong), (["list"], unset)):
        assert command(pipeline, *arguments, **keys, **password) == 1
        said = capsys.readouterr().err
        assert f"refuses bucket '{small}' of the removed rendition 'small'" in said
        assert said.count("\n") == 1
        assert "another-password" not in said

    assert command(pipeline, "delete", "small", "--dry-run") == 0
    amount = f"2 objects, {sum(sizes)} bytes, below s3://{small}/thumbs/\n"
    assert capsys.readouterr().out == f"would delete {amount}"
    assert command(pipeline, "delete", "large") == 1
    assert command(pipeline, "delete", "tiny") == 1
    assert (pipeline.keys(small), pipeline.keys(pipeline.large)) == before

    capsys.readouterr()
    assert command(pipeline, "delete", "small") == 0
    assert capsys.readouterr() == (f"deleted {amount}", "")
    assert pipeline.keys(small) == {
        "thumbs/theirs.png",
        "copies/rose.png",
        *(f"thumbs/tiny/{key}" for key in PICTURES),
    }
    assert pipeline.keys(pipeline.large) == before[1]
    assert pipeline.keys(pipeline.settings.source_bucket) == set(PICTURES)

    assert command(pipeline, "list") == 0
    assert capsys.readouterr().out == "no removed renditions\n"
