"""The table of near-duplicates, beside that of the catalogue; each run replaces it whole."""

from dataclasses import dataclass
from typing import Any

from arro3.core import Array, DataType, Field, RecordBatch, Schema, Table
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from resize_pipeline.catalog.near_duplicates import Groups, near_duplicates
from resize_pipeline.catalog.table import TABLE_CONFIGURATION, CatalogTable, storage_options

_TEXT, _NUMBER = DataType.string(), DataType.int32()
SCHEMA = Schema(
    [
        Field("bucket", _TEXT, nullable=False),
        Field("key", _TEXT, nullable=False),
        Field("etag", _TEXT),
        Field("first_key", _TEXT, nullable=False),
        Field("bits", _NUMBER, nullable=False),
    ]
)


@dataclass(frozen=True)
class Grouped:
    """What a run found: the table, the version it wrote, and counts."""

    uri: str
    version: int
    pictures: int
    grouped: int
    groups: int
    comparisons: int


def write_groups(catalog: CatalogTable) -> Grouped:
    """Find the near-duplicates among the rows of a catalogue, and write their table.

    Raises:
        ConflictError: another run has written it meanwhile.
        TransientError: the server is unreachable.
        UserError: the catalogue's bucket is missing, or access to it is refused.
    """
    snapshot = catalog.newest()
    names = {field.name for field in snapshot.table.schema().fields}
    columns = _hashes(snapshot.table, catalog) if "perceptual_hash" in names else ([], [], [])
    keys, etags, hashes = columns
    found = near_duplicates(hashes)
    uri = f"{catalog.uri}-near-duplicates"
    with catalog.errors():
        options = storage_options(catalog.minio)
        write_deltalake(
            uri,
            Table.from_batches([_batch(catalog.source_bucket, keys, etags, found)]),
            mode="overwrite",
            name=f"{catalog.name}-near-duplicates",
            description=f"Near-duplicates in the bucket {catalog.source_bucket}",
            configuration=TABLE_CONFIGURATION,
            storage_options=options,
        )
        table = DeltaTable(uri, storage_options=options)
        table.vacuum(dry_run=False)
    return Grouped(
        uri,
        table.version(),
        len(keys),
        len(found.members),
        len(set(found.first.tolist())),
        found.comparisons,
    )


def _hashes(table: DeltaTable, catalog: CatalogTable) -> tuple[list[str], list[Any], list[str]]:
    quoted = catalog.source_bucket.replace("'", "''")
    query = (
        "select key, etag, perceptual_hash from catalog where perceptual_hash is not null "  # noqa: S608
        f"and status = 'rendered' and bucket = '{quoted}' order by key"
    )
    columns: tuple[list[str], list[Any], list[str]] = ([], [], [])
    with catalog.errors():
        for batch in QueryBuilder().register("catalog", table).execute(query):
            for mine, column in zip(columns, batch.columns, strict=True):
                mine.extend(column.to_pylist())
    return columns


def _batch(bucket: str, keys: list[str], etags: list[Any], found: Groups) -> RecordBatch:
    members, firsts = found.members.tolist(), found.first.tolist()
    columns = [
        Array([bucket] * len(members), type=_TEXT),
        Array([keys[one] for one in members], type=_TEXT),
        Array([etags[one] for one in members], type=_TEXT),
        Array([keys[one] for one in firsts], type=_TEXT),
        Array(found.bits.tolist(), type=_NUMBER),
    ]
    return RecordBatch.from_arrays(columns, schema=SCHEMA)
