"""Uploads the files of a folder by boto3, in each of its ways, and prints the keys as JSON.

Runs in the environment of the clients, which the tests themselves do not have.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import boto3
import urllib3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

MIB = 2**20
PARTS = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)


def main(endpoint: str, bucket: str, prefix: str, folder: Path) -> None:
    s3 = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    http = urllib3.PoolManager()

    def checked(answer: urllib3.BaseHTTPResponse) -> None:
        if answer.status not in {200, 204}:
            sys.exit(f"HTTP {answer.status}: {answer.data!r}")

    def presigned_put(path: Path, key: str) -> None:
        where = {"Bucket": bucket, "Key": key}
        checked(
            http.request("PUT", s3.generate_presigned_url("put_object", where), path.read_bytes())
        )

    def presigned_post(path: Path, key: str) -> None:
        post = s3.generate_presigned_post(bucket, key)
        file = (path.name, path.read_bytes(), "image/jpeg")
        checked(http.request("POST", post["url"], fields={**post["fields"], "file": file}))

    ways: dict[str, Callable[[Path, str], object]] = {
        "put": lambda path, key: s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes()),
        "file": lambda path, key: s3.upload_file(str(path), bucket, key, Config=PARTS),
        "stream": lambda path, key: s3.upload_fileobj(path.open("rb"), bucket, key, Config=PARTS),
        "presigned-put": presigned_put,
        "presigned-post": presigned_post,
    }
    keys: list[str] = []
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        for way, upload in ways.items():
            key = f"{prefix}{way}/{path.relative_to(folder)}"
            upload(path, key)
            keys.append(key)
    copied = f"{prefix}copied +%20.jpg"
    s3.copy({"Bucket": bucket, "Key": keys[0]}, bucket, copied, Config=PARTS)
    print(json.dumps([*keys, copied]))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
