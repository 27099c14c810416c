"""A JPEG's profile counts wherever browsers find it."""

import io

import numpy as np
import pytest
from PIL import Image

from resize_pipeline.errors import PermanentError
from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition
from tests.support.pictures import detailed, encoded
from tests.support.profiles import rgb_profile

PROFILE = rgb_profile((0.515, 0.241, -0.001), (0.292, 0.692, 0.042), (0.157, 0.067, 0.784), 2.2)
"""That of Display P3, nearly."""
THREE = [PROFILE[:300], PROFILE[300:400], PROFILE[400:]]
PICTURE = encoded(detailed(64, 48), "JPEG", quality=95)
SOF0, SOS = b"\xff\xc0", b"\xff\xda"


def segment(part: bytes, number: int, count: int) -> bytes:
    content = b"ICC_PROFILE\0" + bytes([number, count]) + part
    return b"\xff\xe2" + (len(content) + 2).to_bytes(2) + content


def with_segments(*segments: bytes, before: bytes = SOF0) -> bytes:
    at = PICTURE.index(before)
    return PICTURE[:at] + b"".join(segments) + PICTURE[at:]


def rendered(data: bytes) -> np.ndarray:
    spec = Rendition(name="r", bucket="out", width=99, height=99, format="png")
    [result] = render(data, [spec], max_pixels=10**6)
    return np.asarray(Image.open(io.BytesIO(result.data)).convert("RGB"))


PARTS = [segment(part, number, 3) for number, part in enumerate(THREE, start=1)]
WHOLE = segment(PROFILE, 1, 1)
USED = {
    "in one segment": with_segments(WHOLE),
    "in three": with_segments(*PARTS),
    "in another order": with_segments(*PARTS[::-1]),
    "with one of them twice": with_segments(*PARTS, PARTS[1]),
    "twice": with_segments(WHOLE, WHOLE),
    "after the frame header": with_segments(WHOLE, before=SOS),
}
UNUSED = {
    "without the second": with_segments(PARTS[0], PARTS[2]),
    "numbered from 0": with_segments(segment(PROFILE, 0, 1)),
    "of none": with_segments(segment(PROFILE, 1, 0)),
}


@pytest.mark.parametrize("data", USED.values(), ids=USED)
def test_a_profile_is_used(data):
    expected = rendered(encoded(detailed(64, 48), "JPEG", quality=95, icc_profile=PROFILE))
    assert (rendered(data) == expected).all()
    assert np.abs(expected.astype(int) - rendered(PICTURE)).max() > 10


@pytest.mark.parametrize("data", UNUSED.values(), ids=UNUSED)
def test_one_that_is_not_all_there_is_not(data):
    assert (rendered(data) == rendered(PICTURE)).all()


@pytest.mark.parametrize(("at", "value", "kind"), [(4, 12, "12-bit layers"), (9, 2, "2-layer")])
def test_a_kind_that_is_not_read_is_named(at, value, kind):
    data = bytearray(PICTURE)
    data[data.index(SOF0) + at] = value
    with pytest.raises(PermanentError, match=f"^a JPEG of {kind}"):
        rendered(bytes(data))
