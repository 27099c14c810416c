"""Measures the catalogue with a million rows: size, queries, a run's commit, compaction.

Run as `python -m benchmarks.catalog [ROWS]`. The table is on a MinIO that it starts.
"""

import datetime as dt
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import duckdb

from resize_pipeline.catalog.rows import RenditionEntry, Row
from resize_pipeline.catalog.table import CatalogTable, TableSnapshot
from resize_pipeline.local.processes.ports import free_port
from resize_pipeline.local.stack import running_stack
from resize_pipeline.renditions.facts import Facts
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.settings import Settings

ROWS = 1_000_000
CHUNK = 50_000
RUN = 500
"""Objects of a run, RUN_MAX_OBJECTS."""
RUNS = 20
BUCKET = "catalog"
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
CAMERAS = [("Canon", "EOS R5"), ("NIKON CORPORATION", "NIKON Z 6"), ("Apple", "iPhone 15")]
QUESTIONS = {
    "rows by status": "select status, count(*) from catalog group by status",
    "what failed": "select key, reason from catalog where status = 'rejected'",
    "cameras": "select camera_model, count(*) from catalog group by all order by 2 desc",
    "above 4 megapixels": "select count(*) from catalog where width * height > 4e6",
    "bytes of each rendition": (
        "select entry.name, sum(entry.bytes) from "
        "(select unnest(renditions) as entry from catalog) group by all"
    ),
}


def row(number: int) -> Row:
    """Return a row like that of a photograph; each hundredth was rejected."""
    key = f"2026/album-{number % 5000:04}/IMG_{number:07}.jpg"
    time_of = START + dt.timedelta(seconds=13 * number)
    make, model = CAMERAS[number % len(CAMERAS)]
    facts = Facts(
        width=1000 + number % 5000,
        height=800 + number % 3000,
        format="JPEG",
        mode="RGB",
        frames=1,
        orientation=1,
        profile="sRGB IEC61966-2.1",
        camera_make=make,
        camera_model=model,
        taken=time_of.replace(tzinfo=None).isoformat(),
    )
    etag = f"{hash((number, 1)) & (2**128 - 1):032x}"
    renditions = tuple(
        RenditionEntry(name, f"s3://{name}/{key}", 20_000 + number % 9999, digest)
        for name, digest in (("thumbnail", "0123456789abcdef"), ("web", "fedcba9876543210"))
    )
    one = Row(
        "images",
        key,
        "rendered",
        etag=etag,
        bytes=2_000_000 + number,
        content_type="image/jpeg",
        last_modified=time_of,
        facts=facts,
        renditions=renditions,
        specs="0011223344556677",
        run=f"00000000-0000-0000-0000-{number // RUN:012}",
        partition=f"{time_of:%Y-%m-%d-%H:00}",
        recorded=time_of,
    )
    if number % 100:
        return one
    return replace(one, status="rejected", facts=None, renditions=(), reason="not a picture")


def timed(label: str, work: Callable[[], object]) -> None:
    """Print the seconds and the CPU seconds of some work."""
    started, used = time.monotonic(), time.process_time()
    work()
    took, cpu = time.monotonic() - started, time.process_time() - used
    print(f"{label:40} {took:8.2f} s {cpu:8.2f} s of CPU")


def measure(table: CatalogTable, rows: int) -> None:
    """Fill the table and print the figures."""

    def newest() -> TableSnapshot:
        return table.newest()

    def fill() -> None:
        for start in range(0, rows, CHUNK):
            newest().merge(
                [row(number) for number in range(start, min(start + CHUNK, rows))], replaces=False
            )

    def commit(first: int, count: int) -> None:
        newest().merge([row(number) for number in range(first, first + count)], replaces=False)

    def commits() -> None:
        for number in range(RUNS):
            commit(rows + number * RUN, RUN)

    def overwritten() -> None:
        some = [row(number) for number in range(0, rows, rows // RUN)]
        newest().merge([replace(one, etag="another") for one in some], replaces=True)

    def asked(question: str) -> None:
        catalog = newest().table.scan()  # noqa: F841  DuckDB finds it by its name.
        duckdb.sql(question).fetchall()

    timed(f"fill with {rows:,} rows", fill)
    timed("compaction and vacuum", lambda: newest().maintain(dt.datetime.now(dt.UTC)))
    print(f"{'size after it':40} {sum(_sizes(table)) / 2**20:8.0f} MiB in its newest files")
    timed(f"{RUNS} commits of {RUN} new rows", commits)
    timed(f"commit of {RUN} changed rows all over", overwritten)
    for label, question in QUESTIONS.items():
        timed(f"DuckDB: {label}", lambda question=question: asked(question))
    timed(f"rows of {RUN} keys", lambda: newest().rows([row(n).key for n in range(RUN)]))
    timed("all keys in order, as reconciliation", lambda: sum(1 for _ in newest().states()))
    timed("compaction and vacuum", lambda: newest().maintain(dt.datetime.now(dt.UTC)))


def _sizes(table: CatalogTable) -> Iterator[int]:
    newest = table.newest().table
    files = {uri.rpartition("/")[2] for uri in newest.file_uris()}
    for item in table.minio.list_objects(table.bucket, f"{table.name}/"):
        if item.key.rpartition("/")[2] in files:
            yield item.size


def main() -> None:
    """Start a MinIO, and measure."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            minio_endpoint=f"http://127.0.0.1:{free_port()}",
            minio_root_password="benchmark-password",  # noqa: S106
            kafka_bootstrap_servers=f"127.0.0.1:{free_port()}",
            local_dir=Path(folder),
        )
        user, password = settings.administrator
        with running_stack(settings):
            minio = MinioResource.from_settings(settings, access_key=user, secret_key=password)
            minio.client.make_bucket(BUCKET)
            rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
            measure(CatalogTable(minio, BUCKET, "benchmark", "images"), rows)


if __name__ == "__main__":
    main()
