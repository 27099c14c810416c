"""`resize-pipeline resize` works as a user runs it, without any server."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from PIL import ExifTags, Image

from resize_pipeline.imaging.thumbnails import GAP
from tests.support import hostile
from tests.support.pictures import corner_names, corners, detailed, encoded
from tests.support.profiles import DISPLAY_P3
from tests.support.waiting import wait_until

PROGRAM = str(Path(sys.executable).parent / "resize-pipeline")
PATIENCE_S = 120.0
SPEC = """
renditions:
  large: {width: 100, height: 100, bucket: large-bucket, prefix: big/}
  small: {width: 20, height: 20, bucket: small-bucket}
"""


@pytest.fixture
def pics(tmp_path: Path) -> Path:
    """Make a folder of pictures inside the current one, which has a spec file."""
    (tmp_path / "renditions.yaml").write_text(SPEC)
    folder = tmp_path / "pics"
    for name, data in {
        "rose.jpg": encoded(corners(300, 200), "JPEG"),
        "deep/path/tulip.png": encoded(corners(30, 30), "PNG"),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "resize", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        **options,
    )


def lines(done: subprocess.CompletedProcess[str]) -> list[dict]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("pics")
def test_a_line_of_json_says_what_was_made() -> None:
    done = run("pics", "--recursive", "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    made = {line["path"]: line for line in lines(done)}
    assert set(made) == {"pics/rose.jpg", "pics/deep/path/tulip.png"}
    rose = made["pics/rose.jpg"]
    assert (rose["status"], rose["reason"]) == ("rendered", None)
    assert rose["outputs"] == [
        {
            "rendition": name,
            "path": path,
            "width": width,
            "height": height,
            "format": "JPEG",
            "bytes": Path(path).stat().st_size,
        }
        for name, path, width, height in [
            ("large", "out/large-bucket/big/rose.jpg", 100, 67),
            ("small", "out/small-bucket/rose.jpg", 20, 13),
        ]
    ]
    with Image.open("out/small-bucket/deep/path/tulip.png") as image:
        assert image.size == (20, 20)
        assert corner_names(image) == corner_names(corners())
    assert "2 rendered, 0 rejected" in done.stderr


@pytest.mark.usefixtures("pics")
def test_it_can_be_repeated() -> None:
    first, second = (run("pics", "--recursive", "--out", "out", "--json") for _ in range(2))
    assert first.stdout == second.stdout
    assert second.returncode == 0


def test_some_rejected_are_exit_code_1_with_reasons(pics: Path) -> None:
    (pics / "empty.png").touch()
    (pics / "self").symlink_to("self")
    os.mkfifo(pics / "pipe.jpg")
    (pics / "e\x1b[31mvil\n.jpg").write_bytes(b"\x1b[2J")
    (pics / ("x" * 250 + ".gif")).write_bytes(b"x")
    done = run("pics", "--recursive", "--out", "out")
    assert done.returncode == 1
    assert "2 rendered, 5 rejected" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 7
    assert "rendered pics/rose.jpg: large 100x67, small 20x13" in said
    for line in (
        "rejected pics/empty.png: not a picture that can be decoded (it is empty)",
        "rejected pics/self: cannot be read: Too many levels of symbolic links",
        "rejected pics/pipe.jpg: not a regular file",
    ):
        assert line in said


def test_limits_are_those_of_the_settings(pics: Path) -> None:
    environment = {**os.environ, "SOURCE_MAX_PIXELS": "1000", "SOURCE_MAX_BYTES": "20000"}
    (pics / "large.bmp").write_bytes(bytes(20_001))
    done = run("pics", "--recursive", "--out", "out", "--json", env=environment)
    assert {line["path"]: line["reason"] for line in lines(done)} == {
        "pics/large.bmp": "20001 bytes, more than SOURCE_MAX_BYTES=20000",
        "pics/rose.jpg": "60000 pixels, more than SOURCE_MAX_PIXELS=1000",
        "pics/deep/path/tulip.png": None,
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pics", "--out", "out"], "pics is a folder: add --recursive"),
        (["none.jpg", "--out", "out"], "none.jpg: cannot be read: No such file"),
        (["pics", "--recursive", "--out", "pics/out"], "be read as pictures next time"),
        (["pics", "pics/deep/..", "--recursive", "--out", "out"], "would both become"),
        (["pics/rose.jpg", "--out", "renditions.yaml"], "renditions.yaml is not a folder"),
        (["pics/rose.jpg", "--out", "out", "--spec", "no.yaml"], "no.yaml: cannot be read"),
        (["pics/rose.jpg", "--out", "out", "--spec", "pics/rose.jpg"], "rose.jpg"),
        (["pics/rose.jpg", "--out", "out", "--contact-sheet", "s.bmp"], "must end with one of"),
        (["pics/rose.jpg", "--out", "out", "--contact-sheet", "no/s.png"], "no folder no"),
        (["pics/rose.jpg", "--out", "out", "--contact-sheet", "pics/rose.jpg"], "one of the"),
        (["pics/rose.jpg"], "--out"),
        (["--out", "out"], "PATH"),
    ],
)
@pytest.mark.usefixtures("pics")
def test_wrong_use_is_exit_code_2_and_renders_nothing(arguments: Sequence[str], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not done.stdout
    assert not Path("out").exists()


def test_a_missing_spec_file_is_reported_with_both_remedies(
    pics: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RENDITIONS_FILE", "missing.yaml")
    done = run(str(pics / "rose.jpg"), "--out", "out")
    assert done.returncode == 2
    assert done.stderr == (
        "resize-pipeline: missing.yaml: no such file: name a spec file with --spec or "
        "RENDITIONS_FILE\n"
    )


def test_a_folder_without_a_spec_file_has_that_of_the_package(pics: Path) -> None:
    Path("renditions.yaml").unlink()
    done = run(str(pics / "rose.jpg"), "--out", "out")
    assert done.returncode == 0
    assert "no renditions.yaml in this folder: using /" in done.stderr
    assert Path("out/processed/rose.jpg").is_file()


def test_a_spec_file_can_be_named(pics: Path) -> None:
    Path("my.yaml").write_text("renditions: {tiny: {width: 5, height: 5, bucket: tiny-bucket}}")
    done = run(str(pics / "rose.jpg"), "--out", "out", "--spec", "my.yaml", "--json")
    assert [one["path"] for one in lines(done)[0]["outputs"]] == ["out/tiny-bucket/rose.jpg"]


def test_a_spec_file_runs_code_only_if_allowed(pics: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("steps").mkdir()
    Path("steps/own_step.py").write_text("def grey(image):\n    return image.convert('L')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path("steps").absolute()), *sys.path]))
    Path("my.yaml").write_text(
        "renditions: {tiny: {width: 5, height: 5, bucket: tiny-bucket,"
        " transform: own_step:grey, version: 1}}"
    )
    arguments = [str(pics / "rose.jpg"), "--out", "out", "--spec", "my.yaml"]
    refused = run(*arguments)
    assert refused.returncode == 2
    assert "runs code, transform own_step:grey: add --allow-transforms" in refused.stderr
    assert not Path("out").exists()
    assert run(*arguments, "--allow-transforms").returncode == 0
    with Image.open("out/tiny-bucket/rose.jpg") as image:
        assert image.mode == "L"


@pytest.mark.usefixtures("pics")
def test_what_can_t_be_written_ends_it_with_one_line() -> None:
    Path("out").mkdir()
    Path("out/small-bucket").touch()
    done = run("pics", "--recursive", "--out", "out")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("resize-pipeline: out/small-bucket/")
    assert "cannot be written: " in line


def test_hostile_files_are_a_line_each(pics: Path) -> None:
    files = {**dict(hostile.claims()), **dict(hostile.not_pictures())}
    for name, data in files.items():
        (pics / name).write_bytes(data)
    done = run("pics", "--recursive", "--out", "out", "--json")
    assert done.returncode == 1
    made = {line["path"]: line for line in lines(done)}
    assert len(made) == len(files) + 2
    assert {made[f"pics/{name}"]["status"] for name in files} == {"rejected"}
    assert all(made[f"pics/{name}"]["reason"] for name in files)
    assert made["pics/rose.jpg"]["status"] == "rendered"
    assert done.stderr == f"2 rendered, {len(files)} rejected; renditions are in out\n"


class TestContactSheet:
    def test_a_picture_shows_all(self, pics: Path) -> None:
        for n in range(3):
            (pics / f"{n}.png").write_bytes(encoded(Image.new("RGB", (9, 9), (200, 0, 0)), "PNG"))
        for name in ("sheet.png", "sheet.webp", "sheet.JPG"):
            done = run("pics", "--recursive", "--out", "out", "--contact-sheet", name)
            assert done.returncode == 0, done.stderr
            with Image.open(name) as sheet:
                assert sheet.size == (3 * 100 + GAP, 2 * 100 + GAP)
                assert sheet.getpixel((GAP + 48, GAP + 48)) == pytest.approx((200, 0, 0), abs=9)

    def test_a_page_shows_all_and_escapes_what_strangers_wrote(self, pics: Path) -> None:
        (pics / "<script>alert(1)<").mkdir()
        (pics / "<script>alert(1)<" / "&amp;.jpg").write_bytes(b"<b>")
        done = run("pics", "--recursive", "--out", "out", "--contact-sheet", "sheet.html")
        assert done.returncode == 1
        page = Path("sheet.html").read_text()
        assert "<h1>2 rendered, 1 rejected</h1>" in page
        assert page.count('<img src="data:image/webp;base64,') == 2
        assert "<script" not in page
        assert "&lt;script&gt;alert(1)&lt;/&amp;amp;.jpg" in page
        assert "first bytes b&#x27;&lt;b&gt;&#x27;" in page
        assert "<b>pics/rose.jpg</b><br>large 100x67, small 20x13" in page

    def test_nothing_rendered_is_no_picture(self, pics: Path) -> None:
        (pics / "bad.jpg").write_bytes(b"x")
        done = run("pics/bad.jpg", "--out", "out", "--contact-sheet", "sheet.png")
        assert "no contact sheet sheet.png: nothing was rendered" in done.stderr
        assert not Path("sheet.png").exists()


def test_a_terminal_has_a_progress_bar_and_a_pipe_has_none(pics: Path) -> None:
    assert "━" not in run(str(pics / "rose.jpg"), "--out", "out").stderr
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [PROGRAM, "resize", "pics", "--recursive", "--out", "out", "--json"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        text=True,
    ) as process:
        os.close(theirs)
        assert process.stdout
        said = b""
        try:
            while part := os.read(ours, 10_000):
                said += part
        except OSError:
            pass  # The other end is closed.
        os.close(ours)
        assert [json.loads(line)["status"] for line in process.stdout] == ["rendered"] * 2
    assert "━" in said.decode()
    assert "/2" in said.decode()


def test_it_needs_no_dagster_and_no_client(pics: Path) -> None:
    """It therefore starts fast and depends on no server."""
    program = f"""
import sys
from resize_pipeline.cli import app
try:
    app(["resize", {str(pics / "rose.jpg")!r}, "--out", "out"])
except SystemExit as end:
    assert end.code in (0, None), end.code
print({{name.split(".")[0] for name in sys.modules}} & {{"dagster", "kafka", "minio"}})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
    assert Path("out/small-bucket/rose.jpg").exists()


def test_ctrl_c_leaves_no_child(pics: Path) -> None:
    """Make pictures that take long, so that the children stay busy."""
    scans = dict(hostile.hidden_bombs())["scans.jpg"]
    for n in range(20):
        (pics / f"{n}.jpg").write_bytes(scans)
    with subprocess.Popen(
        [PROGRAM, "resize", "pics", "--recursive", "--out", "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:

        def busy() -> list[psutil.Process]:
            found = psutil.Process(process.pid).children(recursive=True)
            return [one for one in found if one.cpu_times().user > 1]

        wait_until(busy, PATIENCE_S, "children at work")
        found = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) != 0
        _, errors = process.communicate()
    gone, alive = psutil.wait_procs(found, timeout=0)
    assert not alive
    assert gone
    assert "Traceback" not in errors


def test_nothing_is_written_through_a_link(pics: Path, tmp_path: Path) -> None:
    victim, elsewhere = tmp_path / "victim", tmp_path / "elsewhere"
    victim.write_bytes(b"untouched")
    elsewhere.mkdir()
    for name in ("large-bucket/big", "small-bucket"):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "rose.jpg").symlink_to(victim)
    (tmp_path / "sheet.html").symlink_to(victim)
    done = run(str(pics / "rose.jpg"), "--out", "out", "--contact-sheet", "sheet.html")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "out/small-bucket/rose.jpg").is_symlink()
    (tmp_path / "out/small-bucket/deep").symlink_to(elsewhere)
    done = run(str(pics), "--recursive", "--out", "out")
    assert done.returncode == 2
    assert "deep is a link" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert victim.read_bytes() == b"untouched"
    assert not list(elsewhere.iterdir())


def test_jpegli_and_a_target_of_quality_work_in_the_sandbox(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Copyright] = "Rosa"
    picture = encoded(detailed(300, 200), "JPEG", icc_profile=DISPLAY_P3, exif=exif)
    (tmp_path / "rose.jpg").write_bytes(picture)
    (tmp_path / "renditions.yaml").write_text(
        """
renditions:
  jpegli:
    {width: 200, height: 200, bucket: jpegli, jpeg_encoder: jpegli, metadata: [copyright, profile]}
  target: {width: 200, height: 200, bucket: target, quality: {ssim: 0.9}}
  both: {width: 200, height: 200, bucket: both, jpeg_encoder: jpegli, quality: {ssim: 0.9}}
  plain: {width: 200, height: 200, bucket: plain}
"""
    )
    done = run("rose.jpg", "--out", "out")
    assert done.returncode == 0, done.stderr
    with Image.open("out/jpegli/rose.jpg") as image:
        assert image.getexif()[ExifTags.Base.Copyright] == "Rosa"
        assert image.info["icc_profile"]
        # libjpeg's tables begin with 6 at quality 80.
        assert image.quantization[0][0] == 5
    sizes = {path.parent.name: path.stat().st_size for path in Path("out").glob("*/rose.jpg")}
    assert max(sizes["target"], sizes["both"]) < sizes["plain"]
