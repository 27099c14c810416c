"""What the runs that `resize-pipeline reprocess` launches are configured to cover."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from resize_pipeline.commands.reprocess import reprocess
from resize_pipeline.defs.jobs import run_config
from tests.dagster.fakes import fake_settings


@pytest.mark.parametrize(
    ("prefix", "scope"), [("2019/", {"prefix": "2019/"}), ("", {"reconcile": True})]
)
def test_a_prefix_is_one_run_and_the_empty_one_is_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str, scope: dict
) -> None:
    client = Mock()
    client.submit_job_execution.return_value = "run"

    @contextmanager
    def dagster(_settings: object) -> Iterator[Mock]:
        yield client

    monkeypatch.setattr("resize_pipeline.commands.reprocess._dagster", dagster)
    (run,) = reprocess(fake_settings(tmp_path), prefix=prefix, force=True)
    assert (run.run_id, run.keys) == ("run", ())
    ((_, launched),) = client.submit_job_execution.call_args_list
    assert launched["run_config"] == run_config(**scope, force=True)
    assert launched["tags"] == {"dagster/partition": run.partition}
