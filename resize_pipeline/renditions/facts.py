"""What is known of an original without its pixels: plain values within bounds. Pure.

A child that may have been taken over reports them, so the model checks each value.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from resize_pipeline.renditions.analyses import Analysed

TEXT_MAX = 100
"""Most characters of a text in a picture's metadata."""


def _printable(value: str) -> str:
    if not value.isprintable():
        msg = "must be printable"
        raise ValueError(msg)
    return value


Text = Annotated[str, Field(min_length=1, max_length=TEXT_MAX), AfterValidator(_printable)]
_Side = Annotated[int, Field(ge=1, lt=2**31)]


class Facts(BaseModel):
    """What an original is like.

    Attributes:
        width: in pixels, of the upright picture.
        height: in pixels, of the upright picture.
        format: Pillow's name of its format.
        mode: Pillow's name of its pixels' mode.
        frames: number of frames of an animation, else 1; None if counting them takes too long.
        orientation: EXIF's, 1 to 8.
        profile: name of the embedded colour profile.
        camera_make: EXIF's Make.
        camera_model: EXIF's Model.
        taken: EXIF's DateTimeOriginal in ISO 8601: local time, with its offset if EXIF has one.
        latitude: EXIF's, in degrees, positive to the north.
        longitude: EXIF's, in degrees, positive to the east.
        analyses: what the analyses found out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    width: _Side
    height: _Side
    format: Annotated[str, Field(pattern=r"^[A-Z0-9]{1,16}$")]
    mode: Annotated[str, Field(pattern=r"^[A-Za-z0-9;]{1,16}$")]
    frames: _Side | None
    orientation: Annotated[int, Field(ge=1, le=8)]
    profile: Text | None = None
    camera_make: Text | None = None
    camera_model: Text | None = None
    taken: Annotated[
        str | None,
        Field(
            pattern=r"^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9](:[0-5][0-9]){2}([+-][0-9:]{5})?$"
        ),
    ] = None
    latitude: Annotated[float | None, Field(ge=-90, le=90)] = None
    longitude: Annotated[float | None, Field(ge=-180, le=180)] = None
    analyses: tuple[Analysed, ...] = ()
