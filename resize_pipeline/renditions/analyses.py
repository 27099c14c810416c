"""Analyses: what is measured of each picture, and which values they may give. Pure.

A child that may have been taken over reports the values, so each is checked against its column.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, Self, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

ColumnType = Literal["text", "number", "list of text"]

TEXT_MAX = 1000
"""Most characters of a text, and of why an analysis failed."""
ITEMS_MAX = 4096
"""Most items of a list: the widest embeddings in use have 4096 numbers."""


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


class Analysis(BaseModel):
    """What is measured of each picture, under `analyses:` in the spec file.

    Attributes:
        name: the name of a built-in analysis.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if self.name not in BUILT_IN:
            problem = f"no such analysis; must be one of {', '.join(BUILT_IN)}"
            raise PydanticCustomError("conflict", "{problems}", {"problems": [problem]})
        return self

    @property
    def columns(self) -> Mapping[str, ColumnType]:
        """The types of its columns in the catalogue, by name."""
        return BUILT_IN[self.name].columns

    @property
    def digest(self) -> str:
        """16 hex digits that change whenever its values or columns may change."""
        spec = {"name": self.name, "version": BUILT_IN[self.name].version}
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
    return None


def is_answer(asked: Sequence[Analysis], found: Sequence[Analysed]) -> bool:
    """Return whether these are possible results of these analyses, in their order."""
    if [(one.name, one.digest) for one in found] != [(one.name, one.digest) for one in asked]:
        return False
    return all(
        not one.values if one.error else problem_of(analysis, one.values) is None
        for analysis, one in zip(asked, found, strict=True)
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
            return False
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
    }[item]
    return allowed if item == kind else f"a list of at most {ITEMS_MAX} items, each {allowed}"
