"""The builds that `make test-faults` breaks on purpose can still be broken, and still compile."""

import pytest

from tests.faults.broken_builds import ALL, Broken


@pytest.mark.parametrize("broken", ALL, ids=lambda broken: broken.words[0][1][:40])
def test_a_broken_build_compiles(broken: Broken) -> None:
    compile(broken.text(), broken.module, "exec")


def test_words_that_are_not_there_are_named() -> None:
    with pytest.raises(ValueError, match=r"errors.py has changed: 'no such words'"):
        Broken("errors.py", (("no such words", ""),)).text()
