"""The rows of the catalogue, and what a row says after an object's outcome. Pure."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self, cast

from resize_pipeline.delivery.batches import Settled, Status
from resize_pipeline.delivery.row_states import MISSING, RENDERED, digests, specs_state
from resize_pipeline.errors import one_line
from resize_pipeline.renditions.analyses import Analysed, Analysis, analyses_digests
from resize_pipeline.renditions.facts import TEXT_MAX, Facts
from resize_pipeline.renditions.objects import EPOCH, ObjectInfo
from resize_pipeline.renditions.spec import Rendition

REJECTED = "rejected"
FACTS = tuple(name for name in Facts.model_fields if name != "analyses")
"""The columns that come from the picture itself, without those of analyses."""


class RenditionEntry(NamedTuple):
    """A current rendition: `bytes` is its size, `digest` that of its resolved spec."""

    name: str
    uri: str
    bytes: int
    digest: str


class AnalysisEntry(NamedTuple):
    """An analysis whose values the row has, or why it has none."""

    name: str
    digest: str
    error: str | None


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
    def of(cls, values: Mapping[str, Any], analyses: Sequence[Analysis] = ()) -> Self:
        """Return the row with these values, by the names of the table's columns.

        Args:
            values: the values.
            analyses: those whose values are of interest.
        """
        names = {field.name for field in fields(cls)} - {"facts", "renditions"}
        facts = None
        if values["width"] is not None:
            found = {name: values[name] for name in FACTS}
            facts = Facts.model_validate({**found, "analyses": _analysed(values, analyses)})
        entries = tuple(RenditionEntry(**one) for one in values["renditions"] or ())
        return cls(**{name: values[name] for name in names}, facts=facts, renditions=entries)

    @property
    def values(self) -> dict[str, Any]:
        """The values of the table's columns, by name."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        del own["facts"]
        if self.facts is None:
            return {**own, **dict.fromkeys(FACTS), "analyses": None}
        analyses = self.facts.analyses
        return {
            **own,
            **self.facts.model_dump(exclude={"analyses"}),
            **{name: value for one in analyses for name, value in one.values.items()},
            "analyses": [AnalysisEntry(one.name, one.digest, one.error) for one in analyses],
        }

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
        analyses: what rows say of pictures besides.
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
    analyses: Sequence[Analysis] = ()


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
                specs=specs_state(digests(terms.renditions, settled.request.key, metadata)),
                recorded=now,
            )
        case Status.RENDERED | Status.CURRENT if settled.known:
            entries = _entries(settled.known.source, settled.known.sizes, before, terms)
            wanted = {one.name: one.digest for one in entries} | analyses_digests(terms.analyses)
            return replace(
                _row_of_source(settled, before, terms),
                renditions=entries,
                specs=specs_state(wanted),
                recorded=now,
            )
        case _:
            return None


def lacks_facts(row: Row) -> bool:
    """Return whether the picture of a row has to be described."""
    return row.status == RENDERED and row.facts is None


def lacking_analyses(row: Row, terms: Terms) -> list[Analysis]:
    """Return the analyses that the picture of a row still needs."""
    if row.status != RENDERED:
        return []
    known = {(one.name, one.digest) for one in (row.facts.analyses if row.facts else ())}
    return [one for one in terms.analyses if (one.name, one.digest) not in known]


def with_facts(row: Row, facts: Facts | None, terms: Terms) -> Row:
    """Return a row that also says what its picture is like; None says nothing.

    Analyses that it had stay, unless there are newer ones or their specs have changed.
    """
    if facts is None:
        return row
    found = {one.name: one for one in (row.facts.analyses if row.facts else ())}
    found |= {one.name: one for one in facts.analyses}
    analyses = tuple(
        found[one.name]
        for one in terms.analyses
        if one.name in found and found[one.name].digest == one.digest
    )
    changes: dict[str, Any] = {"analyses": analyses}
    if not terms.keeps_position:
        changes |= {"latitude": None, "longitude": None}
    return replace(row, facts=facts.model_copy(update=changes))


def _analysed(values: Mapping[str, Any], analyses: Sequence[Analysis]) -> tuple[Analysed, ...]:
    """Return the results of these analyses that the values of a row have."""
    kept = {one["name"]: one for one in cast("list[Any]", values.get("analyses") or [])}
    return tuple(
        Analysed(
            **kept[one.name],
            values={}
            if kept[one.name]["error"]
            else {name: values.get(name) for name in one.columns},
        )
        for one in analyses
        if one.name in kept and kept[one.name]["digest"] == one.digest
    )


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
    wanted = digests(terms.renditions, source.key, source.metadata or {})
    others = {one.name: one for one in before.renditions} if before else {}
    if before and (before.etag, before.status) != (source.etag, RENDERED):
        others = {}
    found: list[RenditionEntry] = []
    for spec in terms.renditions:
        digest, other = wanted.get(spec.name), others.get(spec.name)
        if spec.name in sizes and digest:
            uri = f"s3://{spec.bucket}/{spec.key_for(source.key)}"
            found.append(RenditionEntry(spec.name, uri, sizes[spec.name], digest))
        elif other and digest and other.digest == digest:
            found.append(other)
    return tuple(found)
