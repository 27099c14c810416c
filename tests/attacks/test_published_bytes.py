"""What a stranger hides in a picture does not get out of the children that render it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from PIL import Image

from resize_pipeline.errors import PermanentError
from resize_pipeline.imaging.limits import RenderLimits
from resize_pipeline.imaging.renderer import Renderer
from resize_pipeline.renditions.spec import Rendition
from tests.support.payloads import PAYLOAD, SIZE, carriers, unusual
from tests.support.pictures import decoded, encoded, psnr

pytestmark = pytest.mark.attacks

LIMITS = RenderLimits(60, 2**31, 10**8, 10**8, 10**8)
SPECS = [
    Rendition(name=f"{name}_{number}", width=side, height=side, bucket="out", metadata=kept)
    for name, side in (("whole", 1000), ("scaled", 60))
    for number, kept in enumerate(["strip", ["profile"], ["copyright", "profile"]])
]


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    renderer = Renderer(LIMITS, workers=2)
    yield renderer
    renderer.close()


@pytest.mark.parametrize("name", carriers())
def test_nothing_hidden_is_published(renderer: Renderer, name: str) -> None:
    for made in renderer.render(carriers()[name], SPECS):
        assert PAYLOAD[:20] not in made.data
        assert PAYLOAD[-20:] not in made.data
        picture = decoded(made.data)
        assert picture.size == (SIZE if made.rendition.startswith("whole") else (60, 45))


@pytest.mark.parametrize("name", unusual())
def test_what_is_published_is_the_picture_that_was_decoded(renderer: Renderer, name: str) -> None:
    data = unusual()[name]
    as_png = SPECS[0].model_copy(update={"name": "as_png", "format": "png"})
    [own, png] = renderer.render(data, [SPECS[0], as_png])
    assert psnr(decoded(own.data), decoded(png.data)) > 30


def test_a_rendition_above_pillow_s_limit_has_no_thumbnail_but_a_reason() -> None:
    """Pillow warns from 89 million pixels on, and refuses twice as many."""
    for pixels in (10**8, 19 * 10**7):
        side = int(pixels**0.5)
        data = encoded(Image.new("1", (side, side)), "PNG")
        enough = Renderer(
            replace(LIMITS, source_pixels=2 * 10**8, output_pixels=2 * 10**8), workers=1
        )
        little = Renderer(LIMITS, workers=1)
        try:
            assert decoded(enough.thumbnail(data)).size == (160, 160)
            if pixels > LIMITS.output_pixels:
                with pytest.raises(PermanentError, match="pixels, more than"):
                    little.thumbnail(data)
                assert little.contact_sheet([data], max_bytes=10**5) is None
        finally:
            enough.close()
            little.close()
