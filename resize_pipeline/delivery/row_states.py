"""What the catalogue says of an object, as far as reconciliation compares it. Pure."""

import datetime as dt
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from resize_pipeline.errors import PermanentError
from resize_pipeline.renditions.analyses import Analysis, analyses_digests
from resize_pipeline.renditions.objects import EPOCH, ObjectInfo
from resize_pipeline.renditions.spec import Rendition

ROW = "catalog"
"""What an object lacks whose row is not up to date, beside the names of renditions."""
RENDERED = "rendered"
"""The status of a row whose object has renditions."""
MISSING = "missing"
"""The status of a row whose object is gone."""


class RowState(NamedTuple):
    """Part of a row: what changes whenever the row has to be written again.

    `specs` is as returned by `specs_state`.
    """

    key: str
    etag: str | None
    status: str
    specs: str
    last_modified: dt.datetime | None


def digests(
    renditions: Sequence[Rendition], key: str, metadata: Mapping[str, str]
) -> dict[str, str]:
    """Return the digest of each spec as resolved for an object, of those that are made of it.

    An invalid one is left out.

    Args:
        renditions: the specs.
        key: the object's key.
        metadata: its user metadata.
    """
    found: dict[str, str] = {}
    for spec in renditions:
        if not spec.wants(key):
            continue
        with suppress(PermanentError):
            found[spec.name] = spec.resolved(metadata).digest
    return found


def specs_state(digests: Mapping[str, str]) -> str:
    """Return 16 hex digits that differ between sets of renditions and analyses.

    Args:
        digests: the digests of their specs, by name.
    """
    parts = sorted(f"{name} {digest}" for name, digest in digests.items())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@dataclass(slots=True)
class Differences:
    """Where rows and source disagree, by keys.

    Attributes:
        outdated: pictures without a row that is up to date.
        gone: rows of objects that do not exist.
        repeated: number of rows that have the key of another one.
    """

    outdated: list[str] = field(default_factory=list[str])
    gone: list[str] = field(default_factory=list[str])
    repeated: int = 0


class RowWalk:
    """The rows of the catalogue, read in step with the listing of the source."""

    def __init__(
        self,
        rows: Iterator[RowState],
        renditions: Sequence[Rendition],
        window: tuple[dt.datetime, dt.datetime] | None = None,
        analyses: Sequence[Analysis] = (),
    ) -> None:
        """Start before the first row.

        Args:
            rows: in order of keys, as the listing of the source.
            renditions: the specs of all renditions.
            window: limits the rows that count although their object is not listed to those last
                modified from the first time on and before the second.
            analyses: what rows say besides.
        """
        self._analyses = analyses_digests(analyses)
        self._window = window
        self._rows = rows
        self._renditions = renditions
        self._head = next(rows, None)
        self.repeated = 0
        """Rows so far that have the key of another row."""

    def up_to(self, source: ObjectInfo | None) -> Iterator[RowState]:
        """Advance to the place of this object, or to the end.

        Returns:
            The rows in the window that are passed, except those of objects that were gone already.
        """
        wanted = source.key.encode() if source else None
        while self._head and (wanted is None or self._head.key.encode() < wanted):
            passed = self._head
            self._advance()
            if passed.status != MISSING and self._is_in_window(passed.last_modified or EPOCH):
                yield passed

    def agrees(self, source: ObjectInfo) -> bool:
        """Return whether the row of an object is up to date; call `up_to` first."""
        row = self._head
        if row is None or row.key != source.key:
            return False
        self._advance()
        wanted = digests(self._renditions, source.key, source.metadata or {})
        if row.status == RENDERED:
            wanted |= self._analyses
        return row.status != MISSING and (row.etag, row.specs) == (
            source.etag,
            specs_state(wanted),
        )

    def _is_in_window(self, time: dt.datetime) -> bool:
        return self._window is None or self._window[0] <= time < self._window[1]

    def _advance(self) -> None:
        before, self._head = self._head, next(self._rows, None)
        while before and self._head and self._head.key == before.key:
            self.repeated += 1
            self._head = next(self._rows, None)


def differences(
    source: Iterable[ObjectInfo], rows: RowWalk, is_expected: Callable[[ObjectInfo], bool]
) -> Differences:
    """Compare a listing of the source with the rows.

    Args:
        source: the listing, in order of keys, with user metadata if the specs read any.
        rows: the rows; its window limits those of objects that are gone.
        is_expected: returns whether an object must have a row.
    """
    found = Differences()
    for item in source:
        found.gone += [row.key for row in rows.up_to(item)]
        if not rows.agrees(item) and is_expected(item):
            found.outdated.append(item.key)
    found.gone += [row.key for row in rows.up_to(None)]
    found.repeated = rows.repeated
    return found
