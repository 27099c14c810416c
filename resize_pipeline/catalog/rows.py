"""The rows of the catalogue, and what a row says after an object's outcome. Pure."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self

from resize_pipeline.delivery.batches import Settled, Status
from resize_pipeline.delivery.row_states import MISSING, digests, specs_state
from resize_pipeline.errors import one_line
from resize_pipeline.renditions.facts import TEXT_MAX, Facts
from resize_pipeline.renditions.objects import EPOCH, ObjectInfo
from resize_pipeline.renditions.spec import Rendition

RENDERED = "rendered"
REJECTED = "rejected"
FACTS = tuple(Facts.model_fields)
"""The columns that come from the picture itself."""


class RenditionEntry(NamedTuple):
    """A current rendition: `bytes` is its size, `digest` that of its resolved spec."""

    name: str
    uri: str
    bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row, which docs/catalog.md explains column by column."""

    bucket: str
    key: str
    status: str
    version: str | None = None
    etag: str | None = None
    bytes: int | None = None
    content_type: str | None = None
    last_modified: dt.datetime | None = None
    facts: Facts | None = None
    error_class: str | None = None
    reason: str | None = None
    renditions: tuple[RenditionEntry, ...] = ()
    specs: str = ""
    run: str = ""
    partition: str | None = None
    recorded: dt.datetime = EPOCH

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the row with these values, by the names of the table's columns."""
        names = {field.name for field in fields(cls)} - {"facts", "renditions"}
        facts = None
        if values["width"] is not None:
            facts = Facts.model_validate({name: values[name] for name in FACTS})
        entries = tuple(RenditionEntry(**one) for one in values["renditions"] or ())
        return cls(**{name: values[name] for name in names}, facts=facts, renditions=entries)

    @property
    def values(self) -> dict[str, Any]:
        """The values of the table's columns, by name."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        del own["facts"]
        facts = self.facts.model_dump() if self.facts else dict.fromkeys(FACTS)
        return {**own, **facts}

    def differs(self, before: "Row | None") -> bool:
        """Return whether a row says anything else than the one before, or is the first."""
        mine = replace(self, run="", recorded=EPOCH)
        return before is None or mine != replace(before, run="", recorded=EPOCH)

    def contradicts(self, before: "Row | None") -> bool:
        """Return whether the row before was written for another state of the source or the specs.

        Then another run may have seen a newer one, so the source has to be looked at again.
        """
        if before is None:
            return False
        theirs = (before.etag, before.status, before.specs)
        return (self.etag, self.status, self.specs) != theirs


@dataclass(frozen=True)
class Terms:
    """What rows say that does not depend on the object.

    Attributes:
        bucket: the source bucket.
        renditions: the specs of all renditions.
        run: id of the run.
        partition_of: returns the key of the partition that a time belongs to.
        keeps_position: whether rows say where a picture was taken, CATALOG_POSITION.
        keeps_renditions: whether renditions of a source that is gone stay.
    """

    bucket: str
    renditions: Sequence[Rendition]
    run: str
    partition_of: Callable[[dt.datetime], str]
    keeps_position: bool
    keeps_renditions: bool


def row_after(settled: Settled, before: Row | None, terms: Terms) -> Row | None:
    """Return what the row of an object says after its outcome.

    Args:
        settled: the outcome.
        before: the row that the table has; None if it has none.
        terms: as in `Terms`.

    Returns:
        The row; None if a later run will write it.
    """
    now = dt.datetime.now(dt.UTC)
    match settled.status:
        case Status.MISSING:
            gone = before or Row(terms.bucket, settled.request.key, MISSING)
            renditions = gone.renditions if terms.keeps_renditions else ()
            return replace(
                gone,
                status=MISSING,
                error_class=None,
                reason=None,
                renditions=renditions,
                run=terms.run,
                recorded=now,
            )
        case Status.REJECTED:
            bare = _row_of_source(settled, before, terms)
            metadata = (settled.known and settled.known.source.metadata) or {}
            return replace(
                bare,
                status=REJECTED,
                error_class=settled.error_class,
                reason=one_line(settled.reason),
                specs=specs_state(digests(terms.renditions, metadata)),
                recorded=now,
            )
        case Status.RENDERED | Status.CURRENT if settled.known:
            entries = _entries(settled.known.source, settled.known.sizes, before, terms)
            return replace(
                _row_of_source(settled, before, terms),
                renditions=entries,
                specs=specs_state({one.name: one.digest for one in entries}),
                recorded=now,
            )
        case _:
            return None


def lacks_facts(row: Row) -> bool:
    """Return whether the picture of a row has to be described."""
    return row.status == RENDERED and row.facts is None


def with_facts(row: Row, facts: Facts | None, terms: Terms) -> Row:
    """Return a row that also says what its picture is like."""
    if facts and not terms.keeps_position:
        facts = facts.model_copy(update={"latitude": None, "longitude": None})
    return replace(row, facts=facts)


def _row_of_source(settled: Settled, before: Row | None, terms: Terms) -> Row:
    key = settled.request.key
    if settled.known is None:
        return Row(terms.bucket, key, RENDERED, etag=settled.etag, run=terms.run)
    source, facts = settled.known.source, settled.known.facts
    if facts is None and before and before.etag == source.etag:
        facts = before.facts
    row = Row(
        bucket=terms.bucket,
        key=key,
        status=RENDERED,
        version=source.version_id,
        etag=source.etag,
        bytes=source.size,
        content_type=one_line(source.content_type)[:TEXT_MAX] or None,
        last_modified=source.last_modified.replace(microsecond=0),
        run=terms.run,
        partition=terms.partition_of(source.last_modified),
    )
    return with_facts(row, facts, terms)


def _entries(
    source: ObjectInfo, sizes: Mapping[str, int], before: Row | None, terms: Terms
) -> tuple[RenditionEntry, ...]:
    """Return the renditions that are current: those that the run saw, and others of the row."""
    wanted = digests(terms.renditions, source.metadata or {})
    others = {one.name: one for one in before.renditions} if before else {}
    if before and (before.etag, before.status) != (source.etag, RENDERED):
        others = {}
    found: list[RenditionEntry] = []
    for spec in terms.renditions:
        digest, other = wanted.get(spec.name), others.get(spec.name)
        if spec.name in sizes and digest:
            uri = f"s3://{spec.bucket}/{spec.key_for(source.key)}"
            found.append(RenditionEntry(spec.name, uri, sizes[spec.name], digest))
        elif other and other.digest == digest:
            found.append(other)
    return tuple(found)
