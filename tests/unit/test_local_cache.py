"""An entry of the cache is complete, and made once."""

import threading
from pathlib import Path

import pytest

from resize_pipeline.local.servers.cache import cached
from tests.support.waiting import wait_until


def test_it_is_made_once_by_whoever_comes_first(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "thing-1.0"
    made: list[Path] = []
    all_asked = threading.Event()

    def make(scratch: Path) -> Path:
        made.append(scratch)
        all_asked.wait(10)
        (scratch / "result").write_text("whole")
        return scratch / "result"

    threads = [threading.Thread(target=cached, args=(target, make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    # A thread that does not wait for its turn would have started by now.
    with pytest.raises(AssertionError):
        wait_until(lambda: len(made) > 1, 0.3, "a second one")
    all_asked.set()
    for thread in threads:
        thread.join(10)
    assert len(made) == 1
    assert target.read_text() == "whole"
    assert not made[0].exists()


def test_what_could_not_be_made_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    target = tmp_path / "thing-1.0"
    (tmp_path / "thing-1.0.making-of-a-killed-process").mkdir()

    def fail(scratch: Path) -> Path:
        (scratch / "half").write_text("half")
        raise KeyError

    with pytest.raises(KeyError):
        cached(target, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["thing-1.0.lock"]
    assert cached(target, lambda scratch: _folder(scratch / "folder")).is_dir()


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
