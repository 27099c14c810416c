"""A program that commits rows of the same keys to a catalogue, again and again, until it is killed.

Run as `python -m tests.support.catalog_writer WRITER BUCKET SOURCE_BUCKET`, with the settings of
the server in the environment. It writes a line after each commit.
"""

import itertools
import sys
from collections.abc import Mapping, Sequence

from resize_pipeline.catalog.recording import Recorder, Undescribed
from resize_pipeline.catalog.rows import Terms
from resize_pipeline.catalog.table import CatalogTable
from resize_pipeline.delivery.batches import Known, Request, Settled, Status
from resize_pipeline.renditions.facts import Facts
from resize_pipeline.renditions.objects import EPOCH, ObjectInfo
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.settings import Settings

KEYS = [f"key-{number}" for number in range(20)]
FACTS = Facts(width=60, height=40, format="PNG", mode="RGB", frames=1, orientation=1)


class Unchanged:
    def is_unchanged(self, settled: Settled) -> bool:
        del settled
        return True

    def describe(self, objects: Sequence[Undescribed]) -> Mapping[str, Facts | None]:
        return {one.settled.request.key: FACTS for one in objects}


def settled(key: str, etag: str) -> Settled:
    source = ObjectInfo(key, etag, None, 10, EPOCH, {})
    return Settled(Request(key, 10), Status.RENDERED, etag, known=Known(source, {}, FACTS))


def main(writer: str, bucket: str, source_bucket: str) -> None:
    settings = Settings()
    assert settings.minio_access_key
    assert settings.minio_secret_key
    minio = MinioResource.from_settings(
        settings,
        access_key=settings.minio_access_key.get_secret_value(),
        secret_key=settings.minio_secret_key.get_secret_value(),
    )
    table = CatalogTable(minio, bucket, "pipeline", source_bucket)
    terms = Terms(source_bucket, (), writer, lambda _: "", False, True)  # noqa: FBT003
    for number in itertools.count():
        outcomes = [settled(key, f"{writer}-{number}") for key in KEYS]
        Recorder(table.newest, Unchanged(), terms, 10.0).record(outcomes)
        print("committed", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
