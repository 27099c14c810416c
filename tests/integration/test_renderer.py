"""Real child processes render pictures that do their worst."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import dagster as dg
import psutil
import pytest
from PIL import Image

from resize_pipeline.errors import PermanentError, TransformError, UserError
from resize_pipeline.imaging.limits import RenderLimits
from resize_pipeline.imaging.renderer import Renderer
from resize_pipeline.renditions.objects import Rendered
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.resources.renderer import IdleRenderer, RendererResource, keep_children
from resize_pipeline.settings.base import MIB
from tests.support.children import rendering_children
from tests.support.pictures import decoded, detailed, encoded
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
SPECS = (
    Rendition(name="large", width=100, height=100, bucket="large-bucket"),
    Rendition(name="small", width=20, height=20, bucket="small-bucket"),
)
PNG = encoded(detailed(200, 100), "PNG")
# Long enough for a busy machine; no test waits this long unless it fails.
PATIENCE_S = 120.0

LIMITS = RenderLimits(
    timeout_s=PATIENCE_S,
    memory_bytes=1024 * MIB,
    source_pixels=10**8,
    output_pixels=10**8,
    pixels_at_once=10**8,
)

# Every Python with its folder on PYTHONPATH imports this at start. It stands in for real decoders,
# which can't be made to crash or hang at will.
SITECUSTOMIZE = """
import json, os, resource, signal, time

try:
    import resize_pipeline.imaging.render as imaging
    from resize_pipeline.imaging import sandbox
except ImportError:
    imaging = None

def worst(data, renditions, **options):
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
        raise ZeroDivisionError("a\\x1b[31m\\nb")
    if word == b"reserve":
        pixels, mine, other = rest.split()
        options["reserve"](int(pixels))
        open(mine, "w").close()
        while not os.path.exists(other):
            time.sleep(0.01)
        return said("reserved", renditions)
    if word == b"limits":
        soft = [resource.getrlimit(one)[0] for one in (resource.RLIMIT_AS, resource.RLIMIT_CORE)]
        return said(soft, renditions)
    if word in (b"say", b"crash-once"):
        return said({"environment": dict(os.environ), "pid": os.getpid()}, renditions)
    return original(data, renditions, **options)

def said(what, renditions):
    data = json.dumps(what).encode()
    return [imaging.Rendered(one.name, data, 1, 1, "PNG", "image/png") for one in renditions]

if imaging:
    original, imaging.render = imaging.render, worst
    # These children leave marks in files; tests/attacks shows what a confined one can do.
    sandbox.enter = lambda read_paths: None
"""


@pytest.fixture
def _worst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{REPOSITORY}")


@pytest.fixture
def start() -> Iterator[Callable[..., Renderer]]:
    started: list[Renderer] = []

    def make(**changes) -> Renderer:
        workers = changes.pop("workers", 1)
        started.append(Renderer(replace(LIMITS, **changes), workers=workers))
        return started[-1]

    yield make
    for one in started:
        one.close()


def children() -> list[psutil.Process]:
    return rendering_children()


def limit_seconds(renderer: Renderer, seconds: float) -> None:
    renderer.limits = replace(renderer.limits, timeout_s=seconds)


def said(renderer: Renderer) -> dict:
    one, _ = renderer.render(b"say", SPECS)
    return json.loads(one.data)


class TestRuns:
    """What one run leaves for the next."""

    @pytest.fixture
    def resource(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[RendererResource]:
        monkeypatch.setattr("resize_pipeline.resources.renderer.idle", keeper := IdleRenderer())
        yield RendererResource(**dataclasses.asdict(LIMITS))
        keeper.is_on = False
        keeper.give_back(keeper.take(LIMITS))
        assert not children()

    def run(self, resource: RendererResource) -> set[int]:
        context = dg.build_init_resource_context()
        resource.setup_for_execution(context)
        try:
            assert len(resource.render(PNG, SPECS)) == 2
            return {child.pid for child in children()}
        finally:
            resource.teardown_after_execution(context)

    def test_is_nothing(self, resource: RendererResource) -> None:
        assert self.run(resource)
        assert not children()

    def test_is_its_children_on_a_warm_worker(self, resource: RendererResource) -> None:
        keep_children()
        assert self.run(resource) == self.run(resource)

    def test_is_nothing_when_a_child_was_killed(self, resource: RendererResource) -> None:
        """Otherwise two dead children would look as if the next picture had ended them."""
        keep_children()
        first = self.run(resource)
        for child in children():
            child.kill()
            child.wait()
        assert not first & self.run(resource)

    def test_is_nothing_when_limits_change(self, resource: RendererResource) -> None:
        keep_children()
        first = self.run(resource)
        resource = resource.model_copy(update={"timeout_s": PATIENCE_S + 1})
        assert not first & self.run(resource)


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
            start(source_pixels=19_999).render(PNG, SPECS)

    def test_more_memory_than_allowed(self, start: Callable[..., Renderer]) -> None:
        """A real picture of 100 million pixels needs 300 MB."""
        large = encoded(Image.new("RGB", (10_000, 10_000)), "PNG", compress_level=1)
        renderer = start(memory_bytes=256 * MIB, source_pixels=10**9)
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
        """The kernel may have killed the child because memory was short."""
        renderer = start()
        made, _ = renderer.render(b"crash-once " + bytes(tmp_path / "crashed"), SPECS)
        assert "pid" in json.loads(made.data)
        assert (tmp_path / "crashed").exists()

    def test_a_child_killed_by_others_is_replaced(self, start: Callable[..., Renderer]) -> None:
        renderer = start()
        first = said(renderer)["pid"]
        os.kill(first, signal.SIGKILL)
        second = said(renderer)["pid"]
        assert second != first
        assert [one.pid for one in children()] == [second]

    def test_an_error_that_nobody_thought_of_costs_no_child(
        self, start: Callable[..., Renderer]
    ) -> None:
        renderer = start()
        child = said(renderer)["pid"]
        with pytest.raises(PermanentError) as caught:
            renderer.render(b"raise", SPECS)
        assert str(caught.value) == r"can't be rendered: ZeroDivisionError: a\x1b[31m b"
        assert said(renderer)["pid"] == child

    def test_one_that_takes_too_long(self, start: Callable[..., Renderer], tmp_path: Path) -> None:
        renderer = start(timeout_s=PATIENCE_S)
        child = said(renderer)["pid"]
        limit_seconds(renderer, 0.2)
        with pytest.raises(PermanentError, match=r"RENDER_TIMEOUT_S=0\.2"):
            renderer.render(b"hang " + bytes(tmp_path / "mark"), SPECS)
        assert not psutil.pid_exists(child), "it would go on for ever"
        limit_seconds(renderer, PATIENCE_S)
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
        """A child decodes untrusted pictures."""
        for name in ("MINIO_SECRET_KEY", "KAFKA_SASL_PASSWORD", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "hunter2-very-secret")
        renderer = start()
        environment = said(renderer)["environment"]
        assert "PYTHONPATH" in environment
        assert "hunter2-very-secret" not in json.dumps(environment)
        [child] = children()
        assert "hunter2-very-secret" not in str(child.environ())
        assert "hunter2-very-secret" not in str(child.cmdline())

    def test_a_child_is_limited_by_the_kernel(self, start: Callable[..., Renderer]) -> None:
        """Memory is limited, and so is what a crash leaves on the disk."""
        one, _ = start(memory_bytes=512 * MIB).render(b"limits", SPECS)
        assert json.loads(one.data) == [512 * MIB, 0]

    def test_a_child_holds_no_files_of_its_parent(
        self, start: Callable[..., Renderer], tmp_path: Path
    ) -> None:
        with (tmp_path / "open").open("w") as file:
            os.set_inheritable(file.fileno(), True)  # noqa: FBT003
            start(workers=2)
            assert all(
                file.name not in {one.path for one in child.open_files()} for child in children()
            )


@pytest.mark.usefixtures("_worst")
class TestPixelsAtOnce:
    """Two children decode at once only if the pixels of both fit."""

    @staticmethod
    def asked(pixels: int, mine: Path, other: Path) -> bytes:
        return b" ".join([b"reserve", str(pixels).encode(), bytes(mine), bytes(other)])

    def test_those_that_fit_decode_together(
        self, start: Callable[..., Renderer], tmp_path: Path
    ) -> None:
        renderer = start(workers=2, pixels_at_once=100)
        one, two = tmp_path / "one", tmp_path / "two"
        # Each finishes only after the other has started.
        pictures = [self.asked(50, one, two), self.asked(50, two, one)]
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(lambda data: renderer.render(data, []), pictures)) == [[], []]
        assert renderer._budget.free == 100

    def test_those_that_do_not_wait_for_each_other(
        self, start: Callable[..., Renderer], tmp_path: Path
    ) -> None:
        renderer = start(workers=3, pixels_at_once=100)
        first, second, small, go = (tmp_path / name for name in ("first", "second", "small", "go"))

        def asked(pixels: int, mine: Path) -> Future[list[Rendered]]:
            return pool.submit(renderer.render, self.asked(pixels, mine, go), [])

        with ThreadPoolExecutor(3) as pool:
            try:
                asked(60, first)
                wait_until(first.exists, PATIENCE_S, "the first")
                waiting = asked(60, second)
                wait_until(renderer._budget._turn.locked, PATIENCE_S, "the second")
                # It would fit, but the one before it would never get its turn.
                last = asked(1, small)
                wait_until(renderer._idle.empty, PATIENCE_S, "the third")
                assert not second.exists()
                assert not small.exists()
            finally:
                go.touch()
            assert waiting.result(PATIENCE_S) == last.result(PATIENCE_S) == []
        assert renderer._budget.free == 100

    def test_one_larger_than_the_budget_is_decoded_alone(
        self, start: Callable[..., Renderer], tmp_path: Path
    ) -> None:
        renderer = start(pixels_at_once=100)
        mark = tmp_path / "mark"
        assert renderer.render(self.asked(1000, mark, mark), []) == []

    def test_waiting_is_not_the_picture_s_time(
        self, start: Callable[..., Renderer], tmp_path: Path
    ) -> None:
        renderer = start(pixels_at_once=100)
        said(renderer)
        mark = tmp_path / "mark"
        with ThreadPoolExecutor(1) as pool:
            with renderer._budget.taken(100):
                limit_seconds(renderer, 2)
                started = time.monotonic()
                waiting = pool.submit(renderer.render, self.asked(100, mark, mark), [])
                wait_until(
                    lambda: time.monotonic() > started + 3, PATIENCE_S, "more than the limit"
                )
            assert waiting.result(PATIENCE_S) == []

    @pytest.mark.parametrize("end", ["timeout", "crash"])
    def test_one_that_ends_its_child_gives_its_pixels_back(
        self, start: Callable[..., Renderer], tmp_path: Path, end: str
    ) -> None:
        renderer = start(pixels_at_once=100)
        said(renderer)
        mark = tmp_path / "mark"
        if end == "timeout":
            limit_seconds(renderer, 0.5)
        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(renderer.render, self.asked(100, mark, tmp_path / "never"), [])
            if end == "crash":
                for _ in range(2):
                    wait_until(mark.exists, PATIENCE_S, "the picture")
                    mark.unlink()
                    children()[0].kill()
            with pytest.raises(PermanentError, match=r"RENDER_TIMEOUT_S|exit code -9"):
                ending.result(PATIENCE_S)
        assert renderer._budget.free == 100

    def test_real_pictures_reserve_what_they_decode(self, start: Callable[..., Renderer]) -> None:
        """They take turns, as the budget has room for one, and all are rendered."""
        renderer = start(workers=2, pixels_at_once=20_000)
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda _: renderer.render(PNG, SPECS), range(8)))
        assert [len(one) for one in made] == [2] * 8
        assert renderer._budget.free == 20_000


OWN_STEPS = """
import os, signal, sys, time
import resize_pipeline.imaging.render

def where(image):
    raise ValueError(__file__)

def crash(image):
    os.kill(os.getpid(), signal.SIGSEGV)

def hang(image):
    time.sleep(10_000)

def memory(image):
    bytearray(10**12)

def grey(image):
    return image.convert("L")
"""


class TestTransforms:
    """How a transform behaves in a child."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Put the module on PYTHONPATH, and another one into the current directory."""
        folder, current = tmp_path / "steps", tmp_path / "current"
        for place in (folder, current):
            place.mkdir()
            (place / "own_steps.py").write_text(OWN_STEPS)
        (current / "only_here.py").write_text(OWN_STEPS)
        monkeypatch.chdir(current)
        paths = ["", ".", str(folder), str(REPOSITORY), ""]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
        return folder

    def spec(self, function: str, module: str = "own_steps") -> Rendition:
        return SPECS[0].model_copy(update={"transform": f"{module}:{function}", "version": 1})

    def test_is_called(self, start: Callable[..., Renderer]) -> None:
        [grey] = start().render(PNG, [self.spec("grey")])
        assert decoded(grey.data).mode == "L"

    def test_is_never_imported_from_the_current_directory(
        self, start: Callable[..., Renderer], folder: Path
    ) -> None:
        renderer = start()
        with pytest.raises(TransformError, match=re.escape(str(folder / "own_steps.py"))):
            renderer.render(PNG, [self.spec("where")])
        with pytest.raises(UserError, match="only_here:where can't be imported"):
            renderer.render(PNG, [self.spec("where", "only_here")])
        assert len(renderer.render(PNG, SPECS)) == 2

    def test_is_blamed_for_a_crash(self, start: Callable[..., Renderer]) -> None:
        renderer = start()
        with pytest.raises(TransformError, match=r"transform own_steps:crash: .* exit code -11"):
            renderer.render(PNG, [self.spec("crash")])
        assert len(renderer.render(PNG, SPECS)) == 2

    def test_is_blamed_for_taking_too_long(self, start: Callable[..., Renderer]) -> None:
        renderer = start()
        renderer.render(PNG, [self.spec("grey")])
        limit_seconds(renderer, 2.0)
        with pytest.raises(TransformError, match="own_steps:hang: took more than RENDER_TIMEOUT_S"):
            renderer.render(PNG, [self.spec("hang")])

    def test_is_blamed_for_the_memory_that_it_takes(self, start: Callable[..., Renderer]) -> None:
        with pytest.raises(TransformError, match=r"own_steps:memory .* failed: MemoryError"):
            start().render(PNG, [self.spec("memory")])

    def test_is_not_blamed_for_what_comes_after_it(self, start: Callable[..., Renderer]) -> None:
        renderer = start()
        renderer.render(PNG, [self.spec("grey")])
        with pytest.raises(PermanentError) as caught:
            renderer.render(PNG[:500], [self.spec("grey")])
        assert not isinstance(caught.value, TransformError)


class TestEnd:
    def test_children_end_with_close(self) -> None:
        renderer = Renderer(LIMITS, workers=2)
        assert len(children()) == 2
        renderer.close()
        assert children() == []

    def test_close_waits_for_what_is_under_way(self) -> None:
        renderer = Renderer(LIMITS, workers=1)
        made: list[int] = []
        thread = threading.Thread(target=lambda: made.append(len(renderer.render(PNG, SPECS))))
        thread.start()
        wait_until(renderer._idle.empty, PATIENCE_S, "the start of the picture")
        renderer.close()
        thread.join(PATIENCE_S)
        assert made == [2]
        assert children() == []

    @pytest.mark.usefixtures("_worst")
    def test_kill_waits_for_nothing(self, tmp_path: Path) -> None:
        renderer = Renderer(LIMITS, workers=2)
        mark = tmp_path / "mark"
        with ThreadPoolExecutor(1) as pool:
            busy = pool.submit(renderer.render, b"hang " + bytes(mark), SPECS)
            wait_until(mark.exists, PATIENCE_S, "the picture")
            renderer.kill()
            with pytest.raises(PermanentError, match="exit code -9"):
                busy.result(PATIENCE_S)
        renderer.close()
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
    """Kills another process that renders, as the test's own can't be killed."""
    program = f"""
        import dataclasses, sys, time
        from pathlib import Path
        from resize_pipeline.imaging.renderer import RenderLimits, Renderer
        limits = RenderLimits(600, 2**30, 10**8, 10**8, 10**8)
        renderer = Renderer(limits, workers=1)
        renderer.render(b"say", [])
        if {what!r} == "hang":
            renderer.limits = dataclasses.replace(limits, timeout_s=2)
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
