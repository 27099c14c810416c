"""Reads HEIC with the colours that it tells; needs the extra `heic`."""

from pillow_heif import HeifImageFile  # pyright: ignore[reportMissingImports]

from resize_pipeline.imaging.colour_codes import profile_of_codes


class HeifReader(HeifImageFile):
    """A HEIC. `info["icc_profile"]` describes the colours of code points, too."""

    format = "HEIF"

    def _open(self) -> None:
        super()._open()
        told = self.info.get("nclx_profile")
        if self.info.get("icc_profile") or not told:
            return
        primaries, transfer = told["color_primaries"], told["transfer_characteristics"]
        profile = profile_of_codes(primaries, transfer, is_grey=self.mode == "L")
        if profile:
            self.info["icc_profile"] = profile
