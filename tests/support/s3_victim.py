"""A program that asks a hostile S3 server everything that the pipeline asks one.

Prints a line of JSON for each request: bucket, request, outcome and seconds; then the peak of its
resident memory in MiB.
"""

import json
import re
import sys
import time
from pathlib import Path

from resize_pipeline.errors import ResizePipelineError
from resize_pipeline.resources import bounded_http
from resize_pipeline.resources.minio import MinioResource

REQUESTS = {
    "list": lambda minio, bucket: sum(1 for _ in minio.list_objects(bucket, "p/")),
    "stat": lambda minio, bucket: minio.stat(bucket, "a.jpg"),
    "download": lambda minio, bucket: minio.download(bucket, "a.jpg", max_bytes=1 << 20),
    "upload": lambda minio, bucket: minio.upload(
        bucket, "a.jpg", b"x", content_type="image/jpeg", metadata={}
    ),
    "copy": lambda minio, bucket: minio.copy_object(bucket, "a.jpg", "b.jpg"),
    "remove": lambda minio, bucket: minio.remove(bucket, "a.jpg"),
    "remove all": lambda minio, bucket: minio.remove_all(bucket, ["a.jpg"]),
}


def peak_mib() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) >> 10


def main(url: str, seconds: float, buckets: list[str]) -> None:
    bounded_http.ANSWER_MAX_S = bounded_http.TRANSFER_MAX_S = seconds
    minio = MinioResource(endpoint=url, access_key="k" * 8, secret_key="s" * 8)
    for bucket in buckets:
        for name, request in REQUESTS.items():
            started = time.monotonic()
            try:
                outcome = ["answered", repr(request(minio, bucket))[:200]]
            except ResizePipelineError as error:
                outcome = [type(error).__name__, str(error)]
            except Exception as error:  # noqa: BLE001 - a traceback, which the test reports.
                outcome = ["traceback", f"{type(error).__name__}: {error}"[:500]]
            took = time.monotonic() - started
            print(json.dumps([bucket, name, *outcome, round(took, 1), peak_mib()]), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3:])
