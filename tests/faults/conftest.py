"""A cluster that faults share for as long as they leave it whole, and the table at the end."""

from collections.abc import Callable, Iterator

import pytest

from tests.faults.checker import LETTERS
from tests.faults.cluster import Cluster
from tests.faults.world import RESULTS


class Clusters:
    """Hands out one cluster, and makes another when it was spoilt."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._current: Cluster | None = None

    def shared(self) -> Cluster:
        if self._current is None:
            self._current = Cluster(self._factory.mktemp("cluster")).__enter__()
        return self._current

    def spoil(self) -> None:
        """Say that nobody else can use it."""
        if self._current is not None:
            self._current.close()
            self._current = None

    def new(self, **options) -> Cluster:
        """Make one for a single fault; the machine has no room for two at a time."""
        self.spoil()
        self._current = Cluster(self._factory.mktemp("cluster"), **options).__enter__()
        return self._current


# Of a session it would keep on running beside all other tests.
@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    found = Clusters(tmp_path_factory)
    yield found
    found.spoil()


def pytest_terminal_summary(terminalreporter) -> None:
    if not RESULTS:
        return
    terminalreporter.section(
        "faults by invariants: + held, X violated, ? broke off, s skipped, . not asked"
    )
    width = max(len(name) for name in RESULTS)
    write: Callable[[str], None] = terminalreporter.write_line
    write(f"{'':{width}}  {'  '.join(LETTERS)}")
    marks = {"held": "+", "violated": "X", "skipped": "s", "unknown": "?"}
    for name, found in RESULTS.items():
        cells = "  ".join(marks.get(found.get(letter, ""), ".") for letter in LETTERS)
        write(f"{name:{width}}  {cells}  {found.get('seconds', '')}")
