"""Pictures that installed packages ship look as libvips shows them, but for a list with reasons.

They are the photographs and drawings of scikit-image, and Go's test pictures, among them the
PngSuite by Willem van Schaik and JPEGs of every subsampling.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest

from resize_pipeline.errors import PermanentError
from tests.support.corpus import MOST_APART, SUFFIXES, apart, ours, theirs

REFUSED = {
    "invalid-crc32.png": "broken",
    "invalid-zlib.png": "broken",
    "multipage_rgb.tif": "a TIFF in RGB of 64 floating-point bits a sample",
}
"""Files that are broken or of a kind that is not read, and what the reason says."""

DIFFERENT = {"page.png": "libpng ignores its profile, which is one of printers (Dot Gain 20 %)"}
"""Files that differ on purpose, and why."""


def package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None, f"{name} is not installed: `uv sync --all-extras` installs it"
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def corpus() -> list[Path]:
    folders = [package("skimage") / "data", package("go") / "src" / "image"]
    return sorted(
        path for folder in folders for path in folder.rglob("*.*") if path.suffix in SUFFIXES
    )


FILES = corpus()


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_it_looks_as_libvips_shows_it(path):
    data = path.read_bytes()
    if path.name in REFUSED:
        with pytest.raises(PermanentError, match=REFUSED[path.name]):
            ours(data)
        return
    here = ours(data)
    there = theirs(data, (here.shape[1], here.shape[0]))
    colours, alpha = apart(here, there)
    found = f"colours {colours:.2f} apart, alpha {alpha:.2f}"
    is_close = max(colours, alpha) < MOST_APART
    # One that is close after all must leave the list.
    assert is_close != (path.name in DIFFERENT), found


def test_the_corpus_is_there():
    """Nothing is left out without a word."""
    names = {path.name for path in FILES}
    assert len(FILES) > 110
    assert {*REFUSED, *DIFFERENT} <= names
    assert {"astronaut.png", "ftbbn2c16.png", "video-001.cmyk.jpeg", "multipage.tif"} <= names
