"""The columns of the catalogue's table, and rows as a batch of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from arro3.core import Array, DataType, Field, RecordBatch, Schema, list_array, struct_array
from deltalake import Schema as TableSchema

from resize_pipeline.catalog.rows import Row
from resize_pipeline.errors import UserError
from resize_pipeline.renditions.analyses import Analysis, ColumnType

_TEXT, _NUMBER, _LONG = DataType.string(), DataType.int32(), DataType.int64()
_REAL, _TIME = DataType.float64(), DataType.timestamp("us", tz="UTC")


def _list_of(item: DataType) -> DataType:
    return DataType.list(Field("element", item))


_RENDITION = [
    Field("name", _TEXT),
    Field("uri", _TEXT),
    Field("bytes", _LONG),
    Field("digest", _TEXT),
]
_ANALYSIS = [Field("name", _TEXT), Field("digest", _TEXT), Field("error", _TEXT)]
_STRUCTS = {"renditions": _RENDITION, "analyses": _ANALYSIS}
_COLUMNS: dict[str, DataType] = {
    "bucket": _TEXT,
    "key": _TEXT,
    "version": _TEXT,
    "etag": _TEXT,
    "bytes": _LONG,
    "content_type": _TEXT,
    "last_modified": _TIME,
    "width": _NUMBER,
    "height": _NUMBER,
    "format": _TEXT,
    "mode": _TEXT,
    "frames": _NUMBER,
    "orientation": _NUMBER,
    "profile": _TEXT,
    "camera_make": _TEXT,
    "camera_model": _TEXT,
    "taken": _TEXT,
    "latitude": _REAL,
    "longitude": _REAL,
    "status": _TEXT,
    "error_class": _TEXT,
    "reason": _TEXT,
    "renditions": _list_of(DataType.struct(_RENDITION)),
    "specs": _TEXT,
    "run": _TEXT,
    "partition": _TEXT,
    "recorded": _TIME,
}
_REQUIRED = frozenset({"bucket", "key", "status"})
SCHEMA = Schema(
    [Field(name, kind, nullable=name not in _REQUIRED) for name, kind in _COLUMNS.items()]
)
"""The columns of a table without analyses."""

_OF_ANALYSES: Mapping[ColumnType, DataType] = {
    "text": _TEXT,
    "number": _REAL,
    "boolean": DataType.bool(),
    "list of text": _list_of(_TEXT),
    "list of number": _list_of(_REAL),
}


def missing_columns(table: TableSchema, analyses: Sequence[Analysis], uri: str) -> Schema | None:
    """Return the columns that analyses need and a table lacks; None if it has all of them.

    Args:
        table: the table's columns.
        analyses: the analyses.
        uri: the table's address.

    Raises:
        UserError: it has a column of such a name, with another type.
    """
    wanted = {"analyses": _list_of(DataType.struct(_ANALYSIS))} if analyses else {}
    for one in analyses:
        wanted |= {name: _OF_ANALYSES[kind] for name, kind in one.columns.items()}
    fields = Schema([Field(name, kind) for name, kind in wanted.items()])
    found = {one.name: one.type for one in table.fields}
    lacking: list[str] = []
    for one in TableSchema.from_arrow(fields).fields:
        if one.name not in found:
            lacking.append(one.name)
        elif found[one.name] != one.type:
            msg = (
                f"the catalogue {uri} has a column {one.name!r} of another type: an analysis had "
                "it before; give the column another name in the spec file"
            )
            raise UserError(msg)
    return Schema([Field(name, wanted[name]) for name in lacking]) if lacking else None


def batch_of(rows: Sequence[Row], schema: Schema) -> RecordBatch:
    """Return rows as columns.

    Args:
        rows: the rows; a column of which they say nothing is null.
        schema: the table's columns.
    """
    values = [row.values for row in rows]
    columns = [
        _array([one.get(field.name) for one in values], field.name, field.type)
        for field in cast("Iterable[Field]", schema)
    ]
    return RecordBatch.from_arrays(columns, schema=schema)


def _array(values: Sequence[Any], name: str, kind: DataType) -> Array:
    if DataType.is_list(kind):
        return _lists(values, name, kind)
    if DataType.is_timestamp(kind):
        micros = [None if one is None else int(one.timestamp() * 1e6) for one in values]
        return Array(micros, type=_LONG).cast(kind)
    return Array(values, type=kind)


def _lists(values: Sequence[Sequence[Any] | None], name: str, kind: DataType) -> Array:
    flat = [item for items in values for item in items or ()]
    offsets = [0]
    for items in values:
        offsets.append(offsets[-1] + len(items or ()))
    if name in _STRUCTS:
        fields = _STRUCTS[name]
        found = struct_array(
            [
                Array([getattr(item, field.name) for item in flat], type=field.type)
                for field in fields
            ],
            fields=fields,
        )
    else:
        found = Array(flat, type=cast("DataType", kind.value_type))
    is_null = Array([items is None for items in values], type=DataType.bool())
    return list_array(Array(offsets, type=_NUMBER), found, type=kind, mask=is_null)
