"""Every test of fidelity runs with both resamplers: the SIMD library's and Pillow's own."""

import pytest

from resize_pipeline.imaging import resampling


@pytest.fixture(autouse=True, params=["simd", "pillow"])
def resampler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "pillow":
        monkeypatch.setattr(resampling, "simd", None)
    elif resampling.simd is None:
        pytest.skip("the SIMD library has no wheel for this platform")
    return request.param
