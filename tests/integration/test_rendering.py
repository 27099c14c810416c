"""Rendering in real child processes, with pictures that do their worst."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from PIL import Image

from resize_pipeline.errors import PermanentError
from resize_pipeline.rendering import Renderer
from resize_pipeline.renditions import Rendition
from resize_pipeline.settings import MIB
from tests.children import rendering_children
from tests.pictures import decoded, detailed, encoded
from tests.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
SPECS = (
    Rendition(name="large", width=100, height=100, bucket="large-bucket"),
    Rendition(name="small", width=20, height=20, bucket="small-bucket"),
)
PNG = encoded(detailed(200, 100), "PNG")
# Long enough for a busy machine; nothing here waits for it when all is well.
PATIENCE_S = 120.0

# Found by every Python that starts with its folder on PYTHONPATH: real decoders can't be made to
# crash or hang at will.
SITECUSTOMIZE = """
import json, os, signal, time

try:
    import resize_pipeline.imaging as imaging
except ImportError:
    imaging = None

def worst(data, renditions, *, max_pixels):
    word, _, rest = bytes(data).partition(b" ")
    if word == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == b"crash-once" and not os.path.exists(rest):
        open(rest, "w").close()  # A mark that it was here.
        os.kill(os.getpid(), signal.SIGKILL)
    if word == b"hang":
        open(rest, "w").write(str(os.getpid()))
        time.sleep(10_000)
    if word == b"memory":
        bytearray(10**12)
    if word == b"raise":
        raise ZeroDivisionError
    if word in (b"say", b"crash-once"):
        said = {"environment": dict(os.environ), "pid": os.getpid(), "max_pixels": max_pixels}
        return [imaging.Rendered("said", json.dumps(said).encode(), 1, 1, "PNG", "image/png")]
    return original(data, renditions, max_pixels=max_pixels)

if imaging:
    original, imaging.render = imaging.render, worst
"""


@pytest.fixture
def _worst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{REPOSITORY}")


@pytest.fixture
def start() -> Iterator[Callable[..., Renderer]]:
    started: list[Renderer] = []

    def make(**changes) -> Renderer:
        fields = {
            "timeout_s": PATIENCE_S,
            "memory_bytes": 1024 * MIB,
            "max_pixels": 10**8,
            "workers": 1,
        }
        started.append(Renderer(**{**fields, **changes}))
        return started[-1]

    yield make
    for one in started:
        one.close()


def children() -> list[psutil.Process]:
    return rendering_children()


def said(renderer: Renderer) -> dict:
    [one] = renderer.render(b"say", SPECS)
    return json.loads(one.data)


class TestPictures:
    def test_come_back_as_they_would_be_made_here(self, start: Callable[..., Renderer]) -> None:
        large, small = start().render(PNG, SPECS)
        assert (large.rendition, small.rendition) == ("large", "small")
        assert decoded(large.data).size == (100, 50)
        assert decoded(small.data).size == (20, 10)

    @pytest.mark.parametrize("data", [b"", b"junk", PNG[:500]])
    def test_a_bad_one_is_its_own_problem(
        self, start: Callable[..., Renderer], data: bytes
    ) -> None:
        renderer = start()
        [child] = children()
        with pytest.raises(PermanentError):
            renderer.render(data, SPECS)
        assert len(renderer.render(PNG, SPECS)) == 2
        assert children() == [child], "it costs no child"

    def test_a_child_serves_many(self, start: Callable[..., Renderer]) -> None:
        renderer = start(workers=2)
        before = set(children())
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda _: renderer.render(PNG, SPECS), range(40)))
        assert all(one == made[0] for one in made)
        assert set(children()) == before

    def test_one_larger_than_a_pipe(self, start: Callable[..., Renderer]) -> None:
        data = PNG + bytes(5 * MIB)
        assert len(start().render(data, SPECS)) == 2

    def test_more_pixels_than_allowed(self, start: Callable[..., Renderer]) -> None:
        with pytest.raises(PermanentError, match="SOURCE_MAX_PIXELS"):
            start(max_pixels=19_999).render(PNG, SPECS)

    def test_more_memory_than_allowed(self, start: Callable[..., Renderer]) -> None:
        """A real picture of 100 million pixels, that takes 300 MB."""
        large = encoded(Image.new("RGB", (10_000, 10_000)), "PNG", compress_level=1)
        renderer = start(memory_bytes=256 * MIB, max_pixels=10**9)
        with pytest.raises(PermanentError, match="RENDER_MEMORY_BYTES=268435456"):
            renderer.render(large, SPECS)
        assert len(renderer.render(PNG, SPECS)) == 2


@pytest.mark.usefixtures("_worst")
class TestAtTheirWorst:
    def test_a_crash_is_the_picture_s_fault_the_second_time(
        self, start: Callable[..., Renderer]
    ) -> None:
        renderer = start()
        with pytest.raises(PermanentError, match=f"exit code -{signal.SIGSEGV:d}"):
            renderer.render(b"crash", SPECS)
        assert len(renderer.render(PNG, SPECS)) == 2

    def test_a_picture_that_ends_one_child_is_tried_again(
        self, start: Callable[..., Renderer], tmp_path: Path
    ) -> None:
        """The kernel may have killed it, because memory was short."""
        renderer = start()
        [made] = renderer.render(b"crash-once " + bytes(tmp_path / "crashed"), SPECS)
        assert made.rendition == "said"
        assert (tmp_path / "crashed").exists()

    def test_a_child_killed_by_others_is_replaced(self, start: Callable[..., Renderer]) -> None:
        renderer = start()
        first = said(renderer)["pid"]
        os.kill(first, signal.SIGKILL)
        second = said(renderer)["pid"]
        assert second != first
        assert [one.pid for one in children()] == [second]

    def test_an_error_that_nobody_thought_of_hurts_no_other(
        self, start: Callable[..., Renderer]
    ) -> None:
        renderer = start()
        with pytest.raises(PermanentError, match="exit code 1"):
            renderer.render(b"raise", SPECS)
        assert len(renderer.render(PNG, SPECS)) == 2

    def test_one_that_takes_too_long(self, start: Callable[..., Renderer], tmp_path: Path) -> None:
        renderer = start(timeout_s=PATIENCE_S)
        child = said(renderer)["pid"]
        renderer._timeout_s = 0.2
        with pytest.raises(PermanentError, match=r"RENDER_TIMEOUT_S=0\.2"):
            renderer.render(b"hang " + bytes(tmp_path / "mark"), SPECS)
        assert not psutil.pid_exists(child), "it would go on for ever"
        renderer._timeout_s = PATIENCE_S
        assert len(renderer.render(PNG, SPECS)) == 2

    def test_one_that_asks_for_too_much(self, start: Callable[..., Renderer]) -> None:
        renderer = start()
        first = said(renderer)["pid"]
        with pytest.raises(PermanentError, match="RENDER_MEMORY_BYTES"):
            renderer.render(b"memory", SPECS)
        assert said(renderer)["pid"] == first, "refused memory costs no child"

    def test_neighbours_are_not_hurt(self, start: Callable[..., Renderer]) -> None:
        renderer = start(workers=2)
        pictures = [b"crash", PNG, b"memory", PNG, b"raise", PNG, b"junk", PNG] * 2

        def outcome(data: bytes) -> bool:
            try:
                return len(renderer.render(data, SPECS)) == 2
            except PermanentError:
                return False

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(outcome, pictures)) == [data is PNG for data in pictures]
        assert len(children()) == 2

    def test_a_child_is_told_no_secrets(
        self, start: Callable[..., Renderer], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It decodes what strangers send."""
        for name in ("MINIO_SECRET_KEY", "KAFKA_SASL_PASSWORD", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "hunter2-very-secret")
        renderer = start()
        environment = said(renderer)["environment"]
        assert "PYTHONPATH" in environment
        assert "hunter2-very-secret" not in json.dumps(environment)
        [child] = children()
        assert "hunter2-very-secret" not in str(child.environ())
        assert "hunter2-very-secret" not in str(child.cmdline())

    def test_a_child_holds_no_files_of_its_parent(
        self, start: Callable[..., Renderer], tmp_path: Path
    ) -> None:
        with (tmp_path / "open").open("w") as file:
            os.set_inheritable(file.fileno(), True)  # noqa: FBT003
            start(workers=2)
            assert all(
                file.name not in {one.path for one in child.open_files()} for child in children()
            )


class TestEnd:
    def test_children_end_with_close(self) -> None:
        renderer = Renderer(timeout_s=60, memory_bytes=1024 * MIB, max_pixels=10**8, workers=2)
        assert len(children()) == 2
        renderer.close()
        assert children() == []

    def test_close_waits_for_what_is_under_way(self) -> None:
        renderer = Renderer(timeout_s=60, memory_bytes=1024 * MIB, max_pixels=10**8, workers=1)
        made: list[int] = []
        thread = threading.Thread(target=lambda: made.append(len(renderer.render(PNG, SPECS))))
        thread.start()
        wait_until(renderer._idle.empty, PATIENCE_S, "the start of the picture")
        renderer.close()
        thread.join(PATIENCE_S)
        assert made == [2]
        assert children() == []

    @pytest.mark.usefixtures("_worst")
    @pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
    def test_children_end_when_their_parent_is_killed(self, *, tmp_path: Path, busy: bool) -> None:
        mark = tmp_path / "mark"
        with parent(mark, "hang" if busy else "idle") as process:
            wait_until(mark.exists, PATIENCE_S, "the start")
            found = wait_until(
                lambda: psutil.Process(process.pid).children(), PATIENCE_S, "its children"
            )
            process.kill()
            process.wait(PATIENCE_S)
            gone, alive = psutil.wait_procs(found, timeout=PATIENCE_S)
            for one in alive:
                one.kill()
            assert not alive
            assert gone


@contextmanager
def parent(mark: Path, what: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that renders: this test's own can't be killed."""
    program = f"""
        import sys, time
        from pathlib import Path
        from resize_pipeline.rendering import Renderer
        renderer = Renderer(timeout_s=600, memory_bytes=2**30, max_pixels=10**8, workers=1)
        renderer.render(b"say", [])
        if {what!r} == "hang":
            renderer._timeout_s = 2
            renderer.render(b"hang {mark}", [])
        Path({str(mark)!r}).touch()
        time.sleep(600)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()
