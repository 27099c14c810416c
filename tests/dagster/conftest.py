"""The fixture of the tests that run Dagster without servers."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.dagster.fakes import fake_settings
from tests.dagster.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Project(instance, tmp_path, fake_settings(tmp_path))
