"""Writing next to what others put there."""

import os
import stat
from pathlib import Path

import pytest

from resize_pipeline.commands import writing
from resize_pipeline.commands.writing import write_below


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "victim").write_bytes(b"untouched")
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "out"


def test_folders_are_made_and_nothing_else_is_left(out: Path) -> None:
    write_below(out, ["a", "b", "c.png"], b"1")
    write_below(out, ["a", "b", "c.png"], b"22")
    assert [path.name for path in out.rglob("*") if path.is_file()] == ["c.png"]
    assert (out / "a/b/c.png").read_bytes() == b"22"


@pytest.mark.parametrize("target", ["../victim", "../new", "loop", "/dev/full"])
def test_a_link_is_replaced(target: str, out: Path) -> None:
    (out / "loop").symlink_to(target)
    write_below(out, ["loop"], b"1")
    assert not (out / "loop").is_symlink()
    assert (out / "loop").read_bytes() == b"1"
    assert (out.parent / "victim").read_bytes() == b"untouched"
    assert not (out.parent / "new").exists()


def test_a_hard_link_and_a_pipe_are_replaced(out: Path) -> None:
    os.link(out.parent / "victim", out / "hard")
    os.mkfifo(out / "pipe")
    for name in ("hard", "pipe"):
        write_below(out, [name], b"1")
        assert stat.S_ISREG((out / name).stat().st_mode)
    assert (out.parent / "victim").read_bytes() == b"untouched"


@pytest.mark.parametrize("parts", [("deep", "x.png"), ("deep", "er", "x.png")])
def test_no_folder_may_be_a_link(parts: tuple[str, ...], out: Path) -> None:
    (out / "deep").symlink_to("../elsewhere")
    with pytest.raises(OSError, match="deep is a link"):
        write_below(out, parts, b"1")
    assert not list((out.parent / "elsewhere").iterdir())


def test_the_folder_itself_may_be_a_link(out: Path) -> None:
    (out / "mine").symlink_to("../elsewhere")
    write_below(out / "mine", ["a", "x.png"], b"1")
    assert (out.parent / "elsewhere/a/x.png").read_bytes() == b"1"


@pytest.mark.parametrize("parts", [("..", "victim"), ("a", "..", "..", "victim"), (".",), ("",)])
def test_no_name_leaves_the_folder(parts: tuple[str, ...], out: Path) -> None:
    with pytest.raises(OSError, match="leave"):
        write_below(out, parts, b"1")
    assert (out.parent / "victim").read_bytes() == b"untouched"
    assert not list(out.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_is_interrupted_leaves_the_old_file(
    error: type[BaseException], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_below(out, ["a.png"], b"old")

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(writing.os, "replace", fail)
    with pytest.raises(error):
        write_below(out, ["a.png"], b"new")
    assert [path.read_bytes() for path in out.iterdir()] == [b"old"]
