"""The configuration of the runs that `resize-pipeline reprocess` launches."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from resize_pipeline.commands.reprocess import reprocess
from resize_pipeline.defs.jobs import run_config
from tests.dagster.fakes import fake_settings
from tests.support.names import NAMES


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Mock:
    client = Mock()
    client.submit_job_execution.return_value = "run"

    @contextmanager
    def dagster(_settings: object) -> Iterator[Mock]:
        yield client

    monkeypatch.setattr("resize_pipeline.commands.reprocess._dagster", dagster)
    return client


@pytest.mark.parametrize(
    ("prefix", "scope"), [("2019/", {"prefix": "2019/"}), ("", {"reconcile": True})]
)
def test_a_prefix_is_one_run_and_the_empty_one_is_everything(
    tmp_path: Path, client: Mock, prefix: str, scope: dict
) -> None:
    (run,) = reprocess(fake_settings(tmp_path), prefix=prefix, force=True)
    assert (run.run_id, run.keys) == ("run", ())
    ((_, launched),) = client.submit_job_execution.call_args_list
    assert launched["run_config"] == run_config(NAMES, **scope, force=True)
    assert launched["tags"] == {"dagster/partition": run.partition}


def test_more_objects_than_a_run_may_name_are_several_runs(
    tmp_path: Path, client: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "resize_pipeline.commands.reprocess"
    monkeypatch.setattr(f"{module}.LISTED_MAX_OBJECTS", 2)
    monkeypatch.setattr(f"{module}._by_partition", lambda *_: {"hour": ["a", "b", "c"]})
    runs = list(reprocess(fake_settings(tmp_path), keys=["a", "b", "c"]))
    assert [run.keys for run in runs] == [("a", "b"), ("c",)]
    launched = [call.kwargs["run_config"] for call in client.submit_job_execution.call_args_list]
    assert launched == [run_config(NAMES, objects=list(run.keys), force=False) for run in runs]
