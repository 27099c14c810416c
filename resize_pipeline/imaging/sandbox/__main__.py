"""Enters the sandbox and writes as JSON which steps took effect; `resize-pipeline status` asks."""

import json
import sys

from resize_pipeline.imaging.sandbox import enter

if __name__ == "__main__":
    sys.stdout.write(json.dumps(enter([])))
