"""A warm process notices that what it was loaded from has changed."""

import os
import py_compile
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from resize_pipeline.instance.warm.files import FilesRead, changed, stamps_of, watched_path
from resize_pipeline.instance.warm.wire import (
    LENGTH,
    MESSAGE_MAX,
    Answer,
    WireError,
    is_own_user,
    listen,
    receive,
    send,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="runs are forked on Linux only")


@pytest.mark.parametrize(
    ("path", "mode", "flags", "expected"),
    [
        ("/a/b.yaml", "r", 0, "/a/b.yaml"),
        (b"/a/b.yaml", "rb", 0, "/a/b.yaml"),
        ("/a/../b", None, os.O_RDONLY | os.O_CLOEXEC, "/b"),
        ("/a/__pycache__/b.cpython-311.pyc", "rb", 0, "/a/b.py"),
        ("/a/b.pyc", "rb", 0, "/a/b.pyc"),
        ("/a/b", "w", 0, None),
        ("/a/b", "r+", 0, None),
        ("/a/b", None, os.O_WRONLY, None),
        ("/proc/stat", "r", 0, None),
        (3, "r", 0, None),
    ],
)
def test_what_is_watched(path: object, mode: object, flags: object, expected: str | None) -> None:
    assert watched_path(path, mode, flags) == expected


def test_what_counts_as_changed(tmp_path: Path) -> None:
    same, saved, removed, made, replaced = (
        str(tmp_path / name) for name in ("same", "saved", "removed", "made", "replaced")
    )
    for path in (same, saved, removed, replaced):
        Path(path).write_text("old")
    before = stamps_of([same, saved, removed, made, replaced])
    Path(saved).write_text("longer")
    Path(removed).unlink()
    Path(made).touch()
    other = tmp_path / "other"
    other.write_text("new")
    os.utime(other, ns=(0, Path(replaced).stat().st_mtime_ns))
    other.replace(replaced)
    assert changed(before, stamps_of(before)) == sorted([saved, removed, made, replaced])
    assert changed(before, before) == []


def test_files_are_recorded_as_they_were_before_they_were_read(tmp_path: Path) -> None:
    module, compiled, read, absent = (
        tmp_path / name for name in ("plain.py", "cached.py", "read.txt", "absent.txt")
    )
    for path in (module, compiled, read):
        path.write_text("x = 1\n")
    py_compile.compile(str(compiled))
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from resize_pipeline.instance.warm.files import FilesRead, changed, stamps_of
reader = FilesRead(always=["asked.txt"])
import plain, cached
open("read.txt").read()
open("read.txt", "a").write("more")
try:
    open("absent.txt")
except FileNotFoundError:
    pass
found = reader.stop()
open("late.txt", "w").close()
print(sorted(path for path in found if path.startswith({str(tmp_path)!r})))
print(changed(found, stamps_of(found)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    asked = tmp_path / "asked.txt"
    recorded, later = done.stdout.splitlines()
    expected = sorted(str(path) for path in (module, compiled, read, absent, asked))
    assert recorded == str(expected)
    assert later == str([str(read)])


def test_the_hook_costs_nothing_once_it_is_stopped() -> None:
    reader = FilesRead()
    found = reader.stop()
    Path(__file__).read_text()
    assert str(Path(__file__)) not in found


def test_a_message(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    path.write_text("what a killed server left")
    with listen(path) as listener, socket.socket(socket.AF_UNIX) as client:
        assert path.stat().st_mode & 0o777 == 0o600
        client.connect(str(path))
        server, _ = listener.accept()
        with server:
            assert is_own_user(server)
            send(server, Answer(pid=5))
            assert receive(client, Answer).pid == 5
            server.sendall(LENGTH.pack(MESSAGE_MAX + 1))
            with pytest.raises(WireError, match="more than"):
                receive(client, Answer)
            server.sendall(LENGTH.pack(2) + b"[]")
            with pytest.raises(WireError):
                receive(client, Answer)
        with pytest.raises(WireError, match="has ended"):
            receive(client, Answer)
