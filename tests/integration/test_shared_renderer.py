"""Pictures in real children that share their time."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from resize_pipeline.errors import PermanentError, SlowPictureError
from resize_pipeline.imaging.child_process import NICENESS
from resize_pipeline.imaging.cpu import cpu_seconds
from resize_pipeline.imaging.limits import FirstTries, RenderLimits, SlowLane
from resize_pipeline.imaging.renderer import Renderer
from resize_pipeline.renditions.spec import Rendition
from tests.support.hostile import scan_bomb
from tests.support.pictures import detailed, encoded
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

LIMITS = RenderLimits(60, 2**31, 10**8, 10**8, 10**8)
SPEC = Rendition(name="small", width=9, height=9, format="png", bucket="small-bucket")
PNG = encoded(detailed(90, 60), "PNG")
SLEEPER = """
import time
def sleep(image):
    time.sleep(60)
    return image
"""


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    renderer = Renderer(LIMITS, workers=1)
    yield renderer
    renderer.close()


def test_a_picture_is_stopped_after_its_first_try_and_another_is_rendered(
    renderer: Renderer,
) -> None:
    tries = FirstTries(1.0, 60.0)
    with pytest.raises(SlowPictureError, match=r"more than 1\.0 s of CPU"):
        renderer.render(scan_bomb(), [SPEC], tries)
    assert len(renderer.render(PNG, [SPEC], tries)) == 1
    assert tries.limit_s() == pytest.approx(0.5, abs=0.1)


def test_the_slow_lane_renders_it(renderer: Renderer) -> None:
    assert len(renderer.render(scan_bomb(scans=1000), [SPEC], SlowLane(60.0))) == 1


def test_children_of_the_slow_lane_give_way_and_so_do_those_that_replace_them(
    renderer: Renderer,
) -> None:
    def niceness() -> set[int]:
        children = psutil.Process().children()
        return {one.nice() for one in children if "resize_pipeline.imaging.child" in one.cmdline()}

    assert renderer.is_ready
    renderer.give_way()
    assert niceness() == {NICENESS}
    with pytest.raises(SlowPictureError):
        renderer.render(scan_bomb(), [SPEC], FirstTries(0.5, 60.0))
    # The child that replaces it has no command line of its own until it has started.
    wait_until(lambda: niceness() == {NICENESS}, 30, "nothing but niced children")
    # No other run may get them.
    assert not renderer.is_ready


def test_a_child_that_sleeps_is_stopped_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    renderer = Renderer(LIMITS, workers=1)
    spec = SPEC.model_copy(update={"transform": "sleeper:sleep", "version": 1})
    try:
        with pytest.raises(SlowPictureError):
            renderer.render(PNG, [spec], FirstTries(0.5, 60.0))
    finally:
        renderer.close()


def test_a_time_limit_below_the_first_try_rejects_as_before() -> None:
    renderer = Renderer(RenderLimits(0.5, 2**31, 10**8, 10**8, 10**8), workers=1)
    try:
        with pytest.raises(PermanentError, match="RENDER_TIMEOUT_S"):
            renderer.render(scan_bomb(), [SPEC], FirstTries(5.0, 60.0))
    finally:
        renderer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="a clock of Linux")
def test_the_time_of_a_picture_is_what_its_child_used(renderer: Renderer) -> None:
    picture = io.BytesIO()
    Image.effect_noise((3000, 3000), 90).save(picture, "PNG")
    tries = FirstTries(30.0, 60.0)
    renderer.render(picture.getvalue(), [SPEC], tries)
    # The rest of what all pictures may take is what counts once it is less than one may take.
    for _ in range(40):
        tries.spend(1.0, is_wasted=False)
    assert 10 < tries.limit_s() < 20
    assert cpu_seconds(2**22 + 1) == 0
