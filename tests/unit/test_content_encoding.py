"""An object's bytes decide, and not what its uploader claims of them."""

import gzip
import zlib

import pytest

from resize_pipeline.errors import PermanentError
from resize_pipeline.resources.content_encoding import ENCODINGS_MAX, without_encoding
from tests.support.pictures import detailed, encoded

JPEG = encoded(detailed(40, 30), "JPEG")
CLAIMS = [
    "gzip",
    "x-gzip",
    "GZIP",
    "deflate",
    "br",
    "zstd",
    "compress",
    "utf-8",
    "gzip, br",
    "\x1b[",
]


@pytest.mark.parametrize("picture_format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("claim", CLAIMS)
def test_a_picture_is_a_picture_whatever_is_claimed(picture_format: str, claim: str) -> None:
    data = encoded(detailed(40, 30), picture_format)
    assert without_encoding(data, claim, 10**6) == data


@pytest.mark.parametrize(
    ("stored", "claim"),
    [
        (JPEG, ""),
        (JPEG, "identity"),
        (b"text", "aws-chunked"),
        (gzip.compress(JPEG), "gzip"),
        (gzip.compress(JPEG), "aws-chunked, gzip"),
        (gzip.compress(JPEG[:99]) + gzip.compress(JPEG[99:]), "x-gzip"),
        (zlib.compress(JPEG), "deflate"),
        (zlib.compress(JPEG)[2:-4], "deflate"),
        (gzip.compress(zlib.compress(JPEG)), "deflate, gzip"),
    ],
)
def test_what_is_encoded_is_decoded(stored: bytes, claim: str) -> None:
    assert without_encoding(stored, claim, 10**6) == (JPEG if stored != b"text" else b"text")


@pytest.mark.parametrize(
    ("stored", "claim", "said"),
    [
        (b"no gzip", "gzip", "does not match its Content-Encoding"),
        (gzip.compress(JPEG)[:-9], "gzip", "does not match its Content-Encoding"),
        (gzip.compress(JPEG) + b"garbage", "gzip", "does not match its Content-Encoding"),
        (gzip.compress(b"") * 10**5, "gzip", "does not match its Content-Encoding"),
        (b"\xff\xff\xff\xff", "deflate", "does not match its Content-Encoding"),
        (b"\x0b\x02\x80", "br", "'br' is not supported: upload it without"),
        (b"x", "\x1b]0;\x07" + "y" * 10**6, "is not supported"),
        (b"x", ",".join(["gzip"] * (ENCODINGS_MAX + 1)), "is not supported"),
    ],
)
def test_what_does_not_match_is_the_objects_own_problem(
    stored: bytes, claim: str, said: str
) -> None:
    with pytest.raises(PermanentError, match=said) as refused:
        without_encoding(stored, claim, 10**6)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 700


@pytest.mark.parametrize("claim", ["gzip", "deflate", "gzip, gzip", "deflate, gzip, gzip"])
def test_no_more_than_the_limit_is_decoded(claim: str) -> None:
    data = bytes(10**7)
    for name in claim.split(", "):
        data = gzip.compress(data) if name == "gzip" else zlib.compress(data)
    limit = 10**5
    assert len(without_encoding(data, claim, limit)) == limit + 1
