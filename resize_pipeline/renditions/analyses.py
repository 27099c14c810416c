"""Analyses: what is found out about each picture, and which values they may give. Pure.

A child that may have been taken over reports the values, so each is checked against its column.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)
from pydantic_core import PydanticCustomError

from resize_pipeline.renditions.spec import checked_function, shown

ColumnType = Literal["text", "number", "boolean", "list of text", "list of number"]

TEXT_MAX = 1000
"""Most characters of a text, and of why an analysis failed."""
ITEMS_MAX = 4096
"""Most items of a list: the widest embeddings in use have 4096 numbers."""
VALUES_MAX_BYTES = 100_000
"""Most bytes of the values of an analysis for one picture, as JSON: 4096 numbers have 90,000."""
COLUMNS_MAX = 50
SIDE, SIDE_MAX = 256, 1024
"""Pixels of the longer side of an image that is analysed: by default, and the most of them."""
BATCH_MAX = 32
"""Most images of a call: 96 MiB at `SIDE_MAX`."""

RESERVED_COLUMNS = frozenset(
    {"bucket", "key", "version", "etag", "bytes", "content_type", "last_modified", "width"}
    | {"height", "format", "mode", "frames", "orientation", "profile", "camera_make"}
    | {"camera_model", "taken", "latitude", "longitude", "status", "error_class", "reason"}
    | {"renditions", "specs", "analyses", "run", "partition", "recorded"}
)
"""The catalogue's own columns."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


class BuiltIn(NamedTuple):
    """An analysis that is part of this package.

    Attributes:
        version: raised when its values change for the same picture.
        columns: the types of its columns, by name.
    """

    version: int
    columns: Mapping[str, ColumnType]


BUILT_IN: Mapping[str, BuiltIn] = {
    "blurhash": BuiltIn(1, {"blurhash": "text"}),
    "perceptual_hash": BuiltIn(1, {"perceptual_hash": "text"}),
    "sharpness": BuiltIn(1, {"sharpness": "number"}),
    "exposure": BuiltIn(1, {"brightness": "number", "shadows": "number", "highlights": "number"}),
    "dominant_colours": BuiltIn(1, {"dominant_colours": "list of text"}),
    "entropy": BuiltIn(1, {"entropy": "number"}),
}
"""The built-in analyses by name; docs/analyses.md explains them."""


_COLUMNS_OF_BUILT_IN = frozenset(name for one in BUILT_IN.values() for name in one.columns)


class Analysis(BaseModel):
    """What is found out about each picture, under `analyses:` in the spec file.

    Attributes:
        name: the name of a built-in analysis, or a new one for a function.
        function: `package.module:function`, which returns the values of an image; None is built in.
        version: version of the analysis, to raise when the function's code or model changes.
        columns: the types of its columns in the catalogue, by name.
        side: most pixels of the longer side of the images that the function receives.
        batch: most images of a call; None gives the function one image and no list.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    function: Annotated[str, AfterValidator(checked_function)] | None = None
    version: Annotated[int, Field(ge=1)] | None = None
    columns: Annotated[dict[str, ColumnType], Field(max_length=COLUMNS_MAX)] = {}
    side: Annotated[int, Field(ge=16, le=SIDE_MAX)] = SIDE
    batch: Annotated[int, Field(ge=1, le=BATCH_MAX)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _built_in(cls, given: Any) -> Any:
        name = given.get("name")
        known = BUILT_IN.get(name) if isinstance(name, str) else None
        own = {"version": known.version, "columns": dict(known.columns)} if known else {}
        return {**own, **given}

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        problems = list(self._problems())
        if problems:
            raise PydanticCustomError("conflict", "{problems}", {"problems": problems})
        return self

    def _problems(self) -> Iterator[str]:
        known = BUILT_IN.get(self.name)
        if known:
            fields = {"version": known.version, "columns": dict(known.columns)}
            if self.model_dump(exclude={"name"}, exclude_defaults=True) != fields:
                yield "is built in and has no fields; give a function of your own another name"
        elif not _NAME.fullmatch(self.name):
            yield "name: must have lower-case letters, digits and _ only, at most 63"
        elif self.function is None:
            yield (
                f"no such analysis; must be one of {', '.join(BUILT_IN)}, or have a function of "
                "your own"
            )
        else:
            yield from self._problems_of_own()

    def _problems_of_own(self) -> Iterator[str]:
        if self.version is None:
            yield "version: missing, must be set and raised when the function changes"
        if not self.columns:
            yield f"columns: missing, must map names to {', '.join(ColumnType.__args__)}"
        for name in self.columns:
            if not _NAME.fullmatch(name):
                yield (
                    f"columns: {shown(name)} must have lower-case letters, digits and _ only, at "
                    "most 63"
                )
            elif name in RESERVED_COLUMNS | _COLUMNS_OF_BUILT_IN:
                yield f"columns: {name!r} is a column of the catalogue, choose another name"

    @property
    def digest(self) -> str:
        """16 hex digits that change whenever its values or columns may change."""
        spec: dict[str, object] = {"name": self.name, "version": self.version}
        if self.function is not None:
            spec |= self.model_dump(include={"function", "columns", "side"})
        canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Analysed(BaseModel):
    """What an analysis found out about a picture.

    Attributes:
        name: name of the analysis.
        digest: its digest.
        values: the values of its columns, by name; empty if it failed.
        error: why it failed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    name: str
    digest: str
    values: dict[str, JsonValue] = {}
    error: Annotated[str, Field(min_length=1, max_length=TEXT_MAX)] | None = None


def problem_of(analysis: Analysis, values: Mapping[str, object]) -> str | None:
    """Return what is wrong with the values of an analysis; None if nothing is.

    Args:
        analysis: the analysis.
        values: whatever it returned, by the names of its columns.
    """
    if values.keys() != analysis.columns.keys():
        return f"must have exactly the columns {', '.join(analysis.columns)}"
    for name, kind in analysis.columns.items():
        if not _fits(kind, values[name]):
            return f"column {name}: must be {_allowed(kind)}, or None"
    if len(json.dumps(values, ensure_ascii=False).encode()) > VALUES_MAX_BYTES:
        return f"its values have more than {VALUES_MAX_BYTES} bytes as JSON"
    return None


def is_answer(asked: Sequence[Analysis], found: Sequence[Analysed]) -> bool:
    """Return whether these are possible results of these analyses, in their order."""
    if [(one.name, one.digest) for one in found] != [(one.name, one.digest) for one in asked]:
        return False
    return all(
        not one.values if one.error else problem_of(analysis, one.values) is None
        for analysis, one in zip(asked, found, strict=True)
    )


def is_own(analysis: Analysis) -> bool:
    """Return whether an analysis is a function of the operator's."""
    return analysis.function is not None


def repeated_columns(analyses: Iterable[Analysis]) -> Iterator[str]:
    """Describe columns that more than one analysis has."""
    owners: dict[str, str] = {}
    for one in analyses:
        for name in one.columns:
            owner = owners.setdefault(name, one.name)
            if owner != one.name:
                yield (
                    f"analyses {owner!r} and {one.name!r}, columns: both have {name!r}, choose "
                    "another name"
                )


def analyses_digests(analyses: Iterable[Analysis]) -> dict[str, str]:
    """Return the digest of each analysis, by a name that no rendition has."""
    return {f"analysis {one.name}": one.digest for one in analyses}


def _fits(kind: ColumnType, value: object) -> bool:
    if value is None:
        return True
    if kind.startswith("list of ") and isinstance(value, list):
        items = cast("list[object]", value)
        item = cast("ColumnType", kind.removeprefix("list of "))
        return len(items) <= ITEMS_MAX and all(
            one is not None and _fits(item, one) for one in items
        )
    match value:
        case str():
            return kind == "text" and len(value) <= TEXT_MAX and _is_storable(value)
        case bool():
            return kind == "boolean"
        case int() | float():
            return kind == "number" and math.isfinite(value)
        case _:
            return False


def _is_storable(text: str) -> bool:
    """Return whether a text has a UTF-8 form: a lone surrogate has none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _allowed(kind: ColumnType) -> str:
    item = kind.removeprefix("list of ")
    allowed = {
        "text": f"text of at most {TEXT_MAX} characters",
        "number": "a finite number",
        "boolean": "True or False",
    }[item]
    return allowed if item == kind else f"a list of at most {ITEMS_MAX} items, each {allowed}"
