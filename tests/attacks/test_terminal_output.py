"""Names and values of strangers on the real command line, in a pipe and on a terminal."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.controls import controls

pytestmark = pytest.mark.attacks

RENDITIONS = "renditions: {a: {width: 9, height: 9, bucket: bbb}}\n"


def run(
    folder: Path, *arguments: str | bytes, terminal: bool = False, **environment: str | bytes
) -> str:
    """Run the command line, and return all that it printed, as a terminal would get it."""
    variables = {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items()}
    variables |= {name.encode(): os.fsencode(value) for name, value in environment.items()}
    argv = [sys.executable, "-m", "resize_pipeline", *arguments]
    if not terminal:
        done = subprocess.run(
            argv, cwd=folder, env=variables, capture_output=True, check=False, timeout=60
        )
        return (done.stdout + done.stderr).decode()
    ours, theirs = pty.openpty()
    with subprocess.Popen(argv, cwd=folder, env=variables, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:  # The end, on Linux.
            pass
        process.wait(60)
    os.close(ours)
    return shown.replace(b"\r\n", b"\n").decode()


ESCAPE = b"\x1b]0;owned\x07\xc2\x9b31m\xe2\x80\xae\xff\r"
TYPED = ESCAPE.replace(b"\xff", b"").decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ["resize", b"a" + ESCAPE, "--out", "out"],
        ["resize", "a.png", "--out", b"out" + ESCAPE],
        ["resize", "a.png", "--out", "out", "--spec", ESCAPE],
        ["resize", "a.png", "--out", "out", "--contact-sheet", ESCAPE + b".html"],
        ["resize", "pictures", "--recursive", "--out", b"out" + ESCAPE],
        ["resize", "a.png", "--out", "out", b"--" + ESCAPE],
        [b"no-such-command" + ESCAPE],
        ["removed-renditions", "delete", ESCAPE],
        ["dead-letters", "show", ESCAPE],
        ["reprocess", ESCAPE],
        ["provision", "--credentials-file", ESCAPE],
    ],
    ids=ascii,
)
@pytest.mark.parametrize("terminal", [False, True])
def test_arguments_and_file_names(arguments: list, terminal: bool, tmp_path: Path) -> None:  # noqa: FBT001
    (tmp_path / "renditions.yaml").write_text(RENDITIONS)
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / os.fsdecode(b"x" + ESCAPE)).write_bytes(b"no picture")
    shown = run(tmp_path, *arguments, terminal=terminal, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
    assert shown
    assert "Traceback" not in shown
    assert "\x1b]" not in shown
    assert not controls(shown) - ({"\x1b", "\r"} if terminal else set())


@pytest.mark.parametrize(
    "name",
    [
        *("RENDITIONS_FILE", "SOURCE_BUCKET", "MINIO_ENDPOINT", "KAFKA_BOOTSTRAP_SERVERS"),
        *("KAFKA_TOPIC", "MINIO_CA_FILE", "KAFKA_CA_FILE", "LOCAL_DIR", "SOURCE_MAX_BYTES"),
        *("NOTIFY_KAFKA_TARGET", "UI_HOST", "MINIO_ACCESS_KEY", "IMAGE_SUFFIXES"),
    ],
)
def test_values_of_the_environment(name: str, tmp_path: Path) -> None:
    (tmp_path / "renditions.yaml").write_text(RENDITIONS)
    servers = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9", "MINIO_ENDPOINT": "http://127.0.0.1:9"}
    for value in (ESCAPE, TYPED.encode(), b"x" * 100_000):
        # Only these two are used for more than a check, and waited for.
        command = ["status"] if name in servers else ["resize", "a.png", "--out", "out"]
        shown = run(tmp_path, *command, **(servers | {name: value}))
        assert "Traceback" not in shown
        assert not controls(shown)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"MINIO_ENDPOINT=" + ESCAPE,
        b"RUN_MAX_\x1b]0;owned\x07=1\n",
        b"\xc2\x9b31m=1\nKAFKA_TOPIC='\x1b[2J\n",
        b"KAFKA_TOPIC=a\x00b",
        b"KAFKA_TOPIC=" + b"x" * 1_000_000,
        b"=" * 100_000,
        b"\n".join(b"RUN_MAX_%d=1" % i for i in range(300)),
    ],
    ids=lambda content: ascii(content[:30]),
)
def test_lines_of_dotenv(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "renditions.yaml").write_text(RENDITIONS)
    (tmp_path / ".env").write_bytes(content)
    shown = run(tmp_path, "resize", "a.png", "--out", "out", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
    assert "Traceback" not in shown
    assert not controls(shown)
    assert len(shown) < 100_000
