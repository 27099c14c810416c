"""The SIMD library stays inside the memory of Pillow's images, as Valgrind sees it."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from resize_pipeline.imaging import resampling
from tests.support.project import REPOSITORY

pytestmark = [pytest.mark.memory, pytest.mark.timeout(900)]

BLOCK_BYTES = 4096
"""Pillow's smallest block: rows of larger images have one each."""


def errors(folder: Path, *arguments: str) -> tuple[str, Counter[tuple[str, str]]]:
    """Return what the script prints, and its errors by kind and by the library that made them."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("NOT TESTED: there is no valgrind; Debian has a package of that name")
    report = folder / "report.xml"
    options = ("--quiet", "--error-limit=no", "--num-callers=40", "--xml=yes")
    script = REPOSITORY / "tests" / "memory" / "resample.py"
    # Python's own allocator would hide where a block ends, and Pillow would use blocks again.
    memory = {
        "PYTHONMALLOC": "malloc",
        "PILLOW_BLOCK_SIZE": f"{BLOCK_BYTES}",
        "PILLOW_BLOCKS_MAX": "0",
    }
    done = subprocess.run(
        [valgrind, *options, f"--xml-file={report}", sys.executable, script, *arguments],
        env=os.environ | memory | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: Counter[tuple[str, str]] = Counter()
    for error in ET.parse(report).getroot().iter("error"):  # noqa: S314
        kind = error.findtext("kind") or ""
        # With XML, Valgrind lists what an interpreter never frees, whatever it is asked for.
        if kind.startswith("Leak"):
            continue
        libraries = [frame.findtext("obj") or "" for frame in error.iter("frame")]
        for name in ("cykooz", "_imaging", "_ctypes"):
            if any(name in Path(one).name or name in one for one in libraries):
                found[kind, name] += 1
    return done.stdout, found


@pytest.mark.skipif(
    resampling.simd is None, reason="the SIMD library has no wheel for this platform"
)
def test_neither_library_leaves_the_memory_of_an_image(tmp_path: Path) -> None:
    printed, found = errors(tmp_path)
    assert "pictures by cykooz-resizer" in printed
    assert not found


def test_one_byte_behind_a_block_is_seen(tmp_path: Path) -> None:
    """Else the test above would say nothing."""
    _, found = errors(tmp_path, "behind")
    assert found["InvalidRead", "_ctypes"]
