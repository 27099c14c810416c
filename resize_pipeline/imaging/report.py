"""Writes as JSON what a rendering child of this host is like; `resize-pipeline status` asks."""

import json
import sys

from resize_pipeline.imaging.resampling import resampler
from resize_pipeline.imaging.sandbox import enter

if __name__ == "__main__":
    steps = enter([])
    sys.stdout.write(json.dumps({"sandbox": steps, "resampler": resampler()}))
