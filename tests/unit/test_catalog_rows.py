"""What a row of the catalogue says, and how runs bring the table up to date side by side."""

import datetime as dt
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from resize_pipeline.catalog.recording import TRIES_MAX, ConflictError, Recorder, Undescribed
from resize_pipeline.catalog.rows import Row, Terms, row_after
from resize_pipeline.delivery.batches import Known, Request, Settled, Status
from resize_pipeline.delivery.row_states import RowState, RowWalk, differences
from resize_pipeline.errors import TransientError
from resize_pipeline.renditions.analyses import Analysed, Analysis
from resize_pipeline.renditions.facts import Facts
from resize_pipeline.renditions.objects import ObjectInfo
from resize_pipeline.renditions.spec import Rendition

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
FACTS = Facts(width=60, height=40, format="PNG", mode="RGB", frames=1, orientation=1)
PLACED = FACTS.model_copy(update={"latitude": 48.5, "longitude": 11.25})
LARGE = Rendition(name="large", width=100, height=100, bucket="large-bucket")
SMALL = Rendition(name="small", width=20, height=20, bucket="small-bucket", prefix="thumbs/")
TERMS = Terms(
    bucket="images",
    renditions=(LARGE, SMALL),
    run="run",
    partition_of=lambda time: f"{time:%Y-%m-%d-%H:00}",
    keeps_position=False,
    keeps_renditions=True,
)


ENTROPY = Analysis(name="entropy")
SHARPNESS = Analysis(name="sharpness")


def analysed_facts(*analyses: Analysis) -> Facts:
    found = tuple(
        Analysed(name=one.name, digest=one.digest, values=dict.fromkeys(one.columns, 1.5))
        for one in analyses
    )
    return FACTS.model_copy(update={"analyses": found})


def info(etag: str, key: str = "a") -> ObjectInfo:
    return ObjectInfo(key, etag, None, 10, NOW, {}, "image/png")


def rendered(etag: str = "1", facts: Facts | None = FACTS, **sizes: int) -> Settled:
    known = Known(info(etag), sizes or {"large": 5, "small": 2}, facts)
    return Settled(Request("a", 10), Status.RENDERED, etag, known=known)


def current(etag: str = "1") -> Settled:
    known = Known(info(etag), {"large": 5, "small": 2})
    return Settled(Request("a", 10), Status.CURRENT, etag, known=known)


def rejected(etag: str = "1") -> Settled:
    known = Known(info(etag), {})
    return Settled(Request("a", 10), Status.REJECTED, etag, "no\npicture", "E", known=known)


MISSING = Settled(Request("a", 0), Status.MISSING)


def row(settled: Settled, before: Row | None = None, terms: Terms = TERMS) -> Row:
    found = row_after(settled, before, terms)
    assert found
    return found


class TestRow:
    def test_it_names_the_renditions_with_their_places(self) -> None:
        one = row(rendered())
        assert [(entry.uri, entry.bytes, entry.digest) for entry in one.renditions] == [
            ("s3://large-bucket/a", 5, LARGE.digest),
            ("s3://small-bucket/thumbs/a", 2, SMALL.digest),
        ]
        assert (one.status, one.partition) == ("rendered", "2026-05-01-12:00")

    def test_it_survives_the_table(self) -> None:
        one = row(rendered())
        values = {**one.values, "renditions": [each._asdict() for each in one.renditions]}
        assert Row.of(values) == one

    def test_the_position_is_kept_by_choice_only(self) -> None:
        assert row(rendered(facts=PLACED)).facts == FACTS
        kept = row(rendered(facts=PLACED), terms=replace(TERMS, keeps_position=True))
        assert kept.facts == PLACED
        assert row(current(), kept).facts == FACTS

    def test_a_run_of_one_rendition_keeps_the_others_of_the_same_content(self) -> None:
        both = row(rendered(small=2), row(rendered(large=5)))
        assert [one.name for one in both.renditions] == ["large", "small"]
        other = row(rendered("2", small=2), row(rendered("1", large=5)))
        assert [one.name for one in other.renditions] == ["small"]

    def test_renditions_that_have_another_spec_by_now_are_dropped(self) -> None:
        terms = replace(TERMS, renditions=(LARGE.model_copy(update={"width": 99}), SMALL))
        one = row(rendered(small=2), row(rendered()), terms)
        assert [each.name for each in one.renditions] == ["small"]

    def test_what_was_not_decoded_again_keeps_its_facts(self) -> None:
        assert row(current("1"), row(rendered("1"))).facts == FACTS
        assert row(current("2"), row(rendered("1"))).facts is None

    def test_a_rejected_object_says_why_and_has_no_renditions(self) -> None:
        one = row(rejected("2"), row(rendered("1")))
        assert (one.status, one.reason, one.renditions) == ("rejected", "no picture", ())
        assert row(rendered("3"), one).reason is None

    def test_a_removed_object_keeps_what_was_known(self) -> None:
        gone = row(MISSING, row(rendered()))
        assert (gone.status, gone.etag, gone.facts, len(gone.renditions)) == (
            "missing", "1", FACTS, 2,
        )  # fmt: skip
        removed = row(MISSING, row(rendered()), replace(TERMS, keeps_renditions=False))
        assert removed.renditions == ()
        assert row(MISSING).status == "missing"

    @pytest.mark.parametrize("status", [Status.BUSY, Status.POSTPONED, Status.DEFERRED])
    def test_what_a_later_run_ends_has_no_row_yet(self, status: Status) -> None:
        assert row_after(Settled(Request("a", 1), status), None, TERMS) is None

    def test_the_same_again_is_no_difference(self) -> None:
        again = row_after(current(), row(rendered()), replace(TERMS, run="another"))
        assert again
        assert not again.differs(row(rendered()))


@dataclass
class FakeTable:
    """Commits in memory; `before_merge` may let another run commit first."""

    rows: dict[str, Row] = field(default_factory=dict)
    version: int = 0
    before_merge: Callable[[], None] | None = None
    error: Exception | None = None

    def newest(self) -> "FakeSnapshot":
        return FakeSnapshot(self, self.version, dict(self.rows))


@dataclass
class FakeSnapshot:
    table: FakeTable
    version: int
    seen: dict[str, Row]

    def rows(self, keys: Sequence[str]) -> Mapping[str, Row]:
        return {key: self.seen[key] for key in keys if key in self.seen}

    def merge(self, rows: Sequence[Row], *, replaces: bool) -> int:
        assert replaces == any(row.key in self.seen for row in rows)
        act, self.table.before_merge = self.table.before_merge, None
        if act:
            act()
        if self.version != self.table.version:
            raise ConflictError
        self.table.rows |= {one.key: one for one in rows}
        self.table.version += 1
        error, self.table.error = self.table.error, None
        if error:
            raise error
        return self.table.version


@dataclass
class FakeSource:
    etag: str | None
    looks: int = 0
    described: int = 0
    then: Callable[[], None] | None = None

    def is_unchanged(self, settled: Settled) -> bool:
        self.looks += 1
        act, self.then = self.then, None
        same = settled.etag == self.etag
        if act:
            act()
        return same

    def describe(self, objects: Sequence[Undescribed]) -> Mapping[str, Facts | None]:
        self.described += len(objects)
        return {
            one.settled.request.key: analysed_facts(*one.analyses)
            for one in objects
            if one.settled.etag == self.etag
        }


def recorder(table: FakeTable, source: FakeSource) -> Recorder:
    return Recorder(table.newest, source, TERMS, 1.0, pause=lambda _: None)


class TestRecorder:
    def test_new_objects_cost_no_look(self) -> None:
        table, source = FakeTable(), FakeSource("1")
        assert recorder(table, source).record([rendered()]).version == 1
        assert (table.rows["a"].etag, source.looks, source.described) == ("1", 0, 0)

    def test_a_run_that_comes_late_does_not_replace_a_newer_row(self) -> None:
        table = FakeTable({"a": row(rendered("2"))})
        done = recorder(table, FakeSource("2")).record([rendered("1")])
        assert (table.rows["a"].etag, table.version) == ("2", 0)
        assert [one.request.key for one in done.overtaken] == ["a"]

    def test_a_run_that_comes_late_does_not_bring_a_removed_object_back(self) -> None:
        table = FakeTable({"a": row(MISSING)})
        recorder(table, FakeSource(None)).record([rendered("1")])
        assert table.rows["a"].status == "missing"

    def test_a_change_during_the_commit_is_noticed_after_it(self) -> None:
        table, source = FakeTable({"a": row(rendered("1"))}), FakeSource("2")

        def overwritten() -> None:
            source.etag = "3"

        source.then = overwritten
        done = recorder(table, source).record([rendered("2")])
        assert table.rows["a"].etag == "2"
        assert [one.request.key for one in done.overtaken] == ["a"]

    def test_of_two_runs_the_later_commit_sees_the_row_of_the_other(self) -> None:
        table, source = FakeTable(), FakeSource("2")
        other = recorder(table, source)
        table.before_merge = lambda: (other.record([rendered("2")]), None)[1]
        done = recorder(table, source).record([rendered("1")])
        assert table.rows["a"].etag == "2"
        assert len(done.overtaken) == 1

    def test_conflicts_end_the_run_after_many_tries(self) -> None:
        table = FakeTable()
        versions = itertools.count(10)

        class Busy(FakeTable):
            def newest(self) -> FakeSnapshot:
                self.version = next(versions)
                return FakeSnapshot(self, -1, {})

        with pytest.raises(TransientError, match=f"{TRIES_MAX} other commits"):
            recorder(Busy(), FakeSource("1")).record([rendered()])
        assert not table.rows

    def test_a_commit_whose_answer_got_lost_is_checked_all_the_same(self) -> None:
        table = FakeTable({"a": row(rendered("1"))}, error=TransientError("no answer"))
        source = FakeSource("2")
        done = recorder(table, source).record([rendered("2")])
        assert (table.rows["a"].etag, table.version, done.overtaken) == ("2", 1, [])
        assert source.looks == 2

    def test_an_unreachable_server_fails_the_run_in_time(self) -> None:
        def newest() -> FakeSnapshot:
            raise TransientError("unreachable")

        with pytest.raises(TransientError, match="unreachable"):
            Recorder(newest, FakeSource("1"), TERMS, -1.0).record([rendered()])

    def test_pictures_that_are_current_already_are_described(self) -> None:
        table, source = FakeTable(), FakeSource("1")
        recorder(table, source).record([current()])
        assert table.rows["a"].facts == FACTS
        recorder(table, source).record([current()])
        assert (source.described, table.version) == (1, 1)

    def test_a_picture_that_changed_before_it_was_described_is_left(self) -> None:
        table = FakeTable()
        done = recorder(table, FakeSource("2")).record([current("1")])
        assert (table.rows, len(done.overtaken)) == ({}, 1)


def states(*rows: tuple[str, str, str]) -> RowWalk:
    specs = row(rendered()).specs
    return RowWalk(
        iter([RowState(key, etag, status, specs, NOW) for key, etag, status in rows]),
        (LARGE, SMALL),
    )


class TestDifferences:
    def test_rows_and_objects_that_agree(self) -> None:
        walk = states(("a", "1", "rendered"), ("b", "2", "rejected"), ("c", "3", "missing"))
        found = differences([info("1", "a"), info("2", "b")], walk, lambda _: True)
        assert (found.outdated, found.gone, found.repeated) == ([], [], 0)

    def test_each_kind_of_difference(self) -> None:
        walk = states(
            ("0", "0", "rendered"),
            ("a", "1", "rendered"),
            ("b", "1", "rendered"),
            ("b", "2", "rendered"),
            ("d", "4", "missing"),
            ("é", "5", "rendered"),
        )
        listed = [info("1", "a"), info("2", "b"), info("3", "c"), info("4", "d")]
        found = differences(listed, walk, lambda item: item.key != "d")
        assert (found.outdated, found.gone, found.repeated) == (["b", "c"], ["0", "é"], 1)

    def test_only_rows_in_the_window_are_gone(self) -> None:
        later = NOW + dt.timedelta(hours=1)
        rows = [RowState("a", "1", "rendered", "", NOW), RowState("b", "1", "rendered", "", later)]
        found = differences(
            [],
            RowWalk(iter(rows), (LARGE,), (later, later.max.replace(tzinfo=dt.UTC))),
            lambda _: True,
        )
        assert found.gone == ["b"]


class TestAnalyses:
    """A row has the values of the analyses that the specs ask for, and no others."""

    def record(self, table: "FakeTable", settled: Settled, *analyses: Analysis) -> "FakeSource":
        source = FakeSource("1")
        terms = replace(TERMS, analyses=analyses)
        Recorder(table.newest, source, terms, 1.0, pause=lambda _: None).record([settled])
        return source

    def test_what_was_found_while_rendering_is_written(self) -> None:
        table = FakeTable()
        source = self.record(table, rendered(facts=analysed_facts(ENTROPY)), ENTROPY)
        assert source.described == 0
        assert table.rows["a"].values["entropy"] == 1.5

    def test_a_new_analysis_of_a_current_picture_reads_it_once(self) -> None:
        table = FakeTable()
        self.record(table, rendered(facts=analysed_facts(ENTROPY)), ENTROPY)
        state = table.rows["a"].specs
        source = self.record(table, current(), ENTROPY, SHARPNESS)
        assert source.described == 1
        values = table.rows["a"].values
        assert (values["entropy"], values["sharpness"]) == (1.5, 1.5)
        assert table.rows["a"].specs != state
        assert self.record(table, current(), ENTROPY, SHARPNESS).described == 0

    def test_an_analysis_that_is_not_asked_for_any_more_leaves_the_row(self) -> None:
        table = FakeTable()
        self.record(table, rendered(facts=analysed_facts(ENTROPY)), ENTROPY)
        assert self.record(table, current()).described == 0
        assert "entropy" not in table.rows["a"].values

    @pytest.mark.parametrize("analyses", [(), (SHARPNESS,), (ENTROPY, SHARPNESS)])
    def test_reconciliation_finds_rows_of_other_analyses(
        self, analyses: tuple[Analysis, ...]
    ) -> None:
        table = FakeTable()
        self.record(table, rendered(facts=analysed_facts(ENTROPY)), ENTROPY)
        one = table.rows["a"]
        state = RowState("a", one.etag, one.status, one.specs, one.last_modified)

        def outdated(*wanted: Analysis) -> list[str]:
            walk = RowWalk(iter([state]), (LARGE, SMALL), analyses=wanted)
            return differences([info("1")], walk, lambda _: True).outdated

        assert outdated(ENTROPY) == []
        assert outdated(*analyses) == ["a"]
