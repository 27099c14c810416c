"""Servers that several files of this folder share."""

from collections.abc import Iterator

import pytest

from tests.support.secured import Secured, secured_servers


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Run a Kafka and a MinIO with TLS. Tests share them: use topics and users of your own."""
    with secured_servers(tmp_path_factory.mktemp("secured")) as servers:
        yield servers
