"""The README is short, and its example is true."""

import re
import textwrap
from pathlib import Path

from PIL import Image

from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.file import load_renditions
from tests.support.pictures import encoded

README = (Path(__file__).parents[2] / "README.md").read_text()
WORDS_MAX = 900


def test_it_is_short() -> None:
    assert len(README.split()) <= WORDS_MAX
    assert "make demo" in README
    assert "make test" in README


def test_its_example_renders_what_it_says(tmp_path: Path) -> None:
    [spec] = re.findall(r"^    renditions:\n(?:    .*\n)+", README, re.MULTILINE)
    file = tmp_path / "renditions.yaml"
    file.write_text(textwrap.dedent(spec))
    renditions = load_renditions(file, "images")
    [(width, height, key)] = re.findall(r"upload of a (\d+) x (\d+) JPEG as `images/(\S+)`", README)
    data = encoded(Image.new("RGB", (int(width), int(height))), "JPEG")
    made = render(data, renditions, max_pixels=10**8)
    rows = re.findall(r"^\| `(\S+)` \| (\d+) x (\d+), (\w+) \| `(\w+)` \|", README, re.MULTILINE)
    assert rows == [
        (
            f"{spec.bucket}/{spec.key_for(key)}",
            str(one.width),
            str(one.height),
            {"JPEG": "JPEG", "WEBP": "WebP"}[one.format],
            spec.name,
        )
        for spec, one in zip(renditions, made, strict=True)
    ]
