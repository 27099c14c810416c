"""Renditions converge on the source, whatever happens to it meanwhile."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resize_pipeline.delivery import converge as module
from resize_pipeline.delivery.batches import (
    Budget,
    Downloaded,
    Request,
    Resized,
    Settled,
    SourceMessage,
    Status,
)
from resize_pipeline.delivery.converge import ROUNDS_MAX, Confirmed, Converger
from resize_pipeline.delivery.looks import LOOKS_MIN
from resize_pipeline.errors import (
    MissingBucketError,
    PermanentError,
    SlowPictureError,
    TransientError,
    UserError,
)
from resize_pipeline.renditions.objects import SOURCE_ETAG, Original, Rendered
from resize_pipeline.renditions.spec import Rendition
from tests.dagster.fakes import SOURCE, FakeMinio, etag

LARGE = Rendition(name="large", width=100, height=100, bucket="large-bucket")
SMALL = Rendition(name="small", width=10, height=10, bucket="small-bucket", prefix="thumbs/")
SPECS = (LARGE, SMALL)
REQUEST = Request("a", 1)
ANNOUNCED = Request("a", 1, SourceMessage("events", 0, 0, b"images/a", b"{}"))


class FakeRenderer:
    def render(self, data: bytes, renditions: Sequence[Rendition]) -> list[Rendered]:
        if data.startswith(b"junk"):
            raise PermanentError("no picture")
        return [
            Rendered(spec.name, spec.name.encode() + data, 1, 1, "PNG", "image/png")
            for spec in renditions
        ]


FOCAL = Rendition(
    name="focal", width=9, height=9, bucket="focal-bucket", fit="cover", position="focal-point"
)


def converger(store: FakeMinio, **changes) -> Converger:
    fields = {
        "store": store,
        "renderer": FakeRenderer(),
        "renditions": SPECS,
        "source_bucket": SOURCE,
        "source_max_bytes": 1000,
        "delete_renditions": False,
        "retry_s": 0.0,
    }
    return Converger(**{**fields, **changes})


def converge(one: Converger, request: Request = REQUEST) -> Settled:
    """What the steps of a run do with an object."""
    step = one.download(request)
    if isinstance(step, Downloaded):
        step = one.resize(step)
    if isinstance(step, Resized):
        step = one.upload(step)
    settled, _ = one.confirm(step)
    return settled


def made_of(store: FakeMinio, key: str = "a") -> list[bytes | None]:
    """The source that each rendition says it was made of and was made of."""
    found = []
    for spec in SPECS:
        rendition = store.objects.get((spec.bucket, spec.key_for(key)))
        if rendition:
            data = rendition.data.removeprefix(spec.name.encode())
            assert rendition.metadata["source-etag"] == etag(data)
            assert rendition.metadata["spec-digest"] == spec.digest
        found.append(data if rendition else None)
    return found


def once(
    name: str, bucket: str, change: Callable[[], None], *, times: int = 1
) -> Callable[[str, str, str], None]:
    """Call `change` ahead of the first calls of this name in this bucket."""
    left = iter(range(times))

    def before(called: str, in_bucket: str, key: str) -> None:
        del key
        if (called, in_bucket) == (name, bucket) and next(left, None) is not None:
            change()

    return before


@pytest.fixture
def store() -> FakeMinio:
    store = FakeMinio()
    store.put("a", b"1")
    return store


class TestPostponed:
    """A picture that takes longer than the others leave it."""

    class Slow:
        def render(self, data: bytes, renditions: Sequence[Rendition]) -> list[Rendered]:
            del data, renditions
            raise SlowPictureError("takes more than 5.0 s of CPU time")

    def test_it_is_postponed_and_nothing_is_written(self, store: FakeMinio) -> None:
        one = converger(store, renderer=self.Slow())
        settled = converge(one)
        assert (settled.request, settled.status) == (REQUEST, Status.POSTPONED)
        assert store.written() == []

    def test_its_dead_letter_stays(self, store: FakeMinio) -> None:
        request = replace(REQUEST, has_dead_letter=True)
        settled = Settled(request, Status.POSTPONED, etag(b"1"))
        sent: list[object] = []
        one = converger(store)
        assert one.answer([Confirmed(settled, None)], lambda *of: sent.extend(of)) == [
            Confirmed(settled, None)
        ]
        assert not any(sent)


class TestIdempotence:
    def test_rendered(self, store: FakeMinio) -> None:
        assert converge(converger(store)) == Settled(REQUEST, Status.RENDERED, etag(b"1"))
        assert made_of(store) == [b"1", b"1"]

    def test_a_repeat_writes_nothing_and_reads_no_original(self, store: FakeMinio) -> None:
        converge(converger(store))
        store.calls.clear()
        assert converge(converger(store)).status is Status.CURRENT
        assert {name for name, _, _ in store.calls} == {"stat"}

    def test_only_what_is_not_current_is_made(self, store: FakeMinio) -> None:
        converge(converger(store))
        del store.objects[SMALL.bucket, "thumbs/a"]
        store.calls.clear()
        assert converge(converger(store)).status is Status.RENDERED
        assert store.written() == [(SMALL.bucket, "thumbs/a")]

    def test_a_changed_spec_is_made_again(self, store: FakeMinio) -> None:
        converge(converger(store))
        store.calls.clear()
        changed = SMALL.model_copy(update={"quality": 1})
        converge(converger(store, renditions=(LARGE, changed)))
        assert store.written() == [(SMALL.bucket, "thumbs/a")]

    def test_the_same_bytes_written_again_change_nothing(self, store: FakeMinio) -> None:
        converge(converger(store))
        store.put("a", b"1")
        assert converge(converger(store)).status is Status.CURRENT

    def test_metadata_in_place_of_a_rendition_of_ours(self, store: FakeMinio) -> None:
        """Somebody's object at the rendition's key says nothing of what it was made of."""
        store.upload(LARGE.bucket, "a", b"other", content_type="", metadata={})
        converge(converger(store))
        assert made_of(store) == [b"1", b"1"]


class TestAnnounced:
    def test_a_new_one_takes_one_look_before_and_one_after(self, store: FakeMinio) -> None:
        settled = converge(converger(store), ANNOUNCED)
        assert settled == Settled(ANNOUNCED, Status.RENDERED, etag(b"1"))
        assert made_of(store) == [b"1", b"1"]
        assert store.calls == [
            ("stat", LARGE.bucket, "a"),
            ("download", SOURCE, "a"),
            ("upload", LARGE.bucket, "a"),
            ("upload", SMALL.bucket, "thumbs/a"),
            ("stat", SOURCE, "a"),
        ]

    def test_of_many_new_ones_only_the_first_are_looked_for(self, store: FakeMinio) -> None:
        one = converger(store)
        for number in range(2 * LOOKS_MIN):
            store.put(f"{number}", b"1")
            converge(one, replace(ANNOUNCED, key=f"{number}"))
        looks = [
            key for name, bucket, key in store.calls if (name, bucket) == ("stat", "large-bucket")
        ]
        assert looks == [f"{number}" for number in range(LOOKS_MIN)]

    def test_once_one_is_found_all_are_looked_for(self, store: FakeMinio) -> None:
        one = converger(store)
        converge(one, ANNOUNCED)
        again = converger(store)
        assert converge(again, ANNOUNCED).status is Status.CURRENT
        for number in range(2 * LOOKS_MIN):
            store.put(f"{number}", b"1")
            converge(again, replace(ANNOUNCED, key=f"{number}"))
        store.calls.clear()
        assert converge(again, ANNOUNCED).status is Status.CURRENT
        assert {name for name, _, _ in store.calls} == {"stat"}

    def test_what_is_made_again_for_lack_of_a_look_is_right(self, store: FakeMinio) -> None:
        converge(converger(store), ANNOUNCED)
        store.put("a", b"2")
        one = converger(store)
        for _ in range(LOOKS_MIN):
            one.looks.saw(None)
        assert converge(one, ANNOUNCED).status is Status.RENDERED
        assert made_of(store) == [b"2", b"2"]
        store.calls.clear()
        assert converge(one, ANNOUNCED).status is Status.RENDERED
        assert store.calls[0] == ("download", SOURCE, "a")
        assert made_of(store) == [b"2", b"2"]

    def test_one_that_is_overwritten_takes_each_look_once(self, store: FakeMinio) -> None:
        converge(converger(store), ANNOUNCED)
        store.put("a", b"2")
        store.calls.clear()
        assert converge(converger(store), ANNOUNCED).status is Status.RENDERED
        assert made_of(store) == [b"2", b"2"]
        assert store.calls == [
            ("stat", LARGE.bucket, "a"),
            ("stat", SOURCE, "a"),
            ("stat", SMALL.bucket, "thumbs/a"),
            ("download", SOURCE, "a"),
            ("upload", LARGE.bucket, "a"),
            ("upload", SMALL.bucket, "thumbs/a"),
            ("stat", SOURCE, "a"),
        ]

    def test_once_more_reads_no_original(self, store: FakeMinio) -> None:
        converge(converger(store), ANNOUNCED)
        store.calls.clear()
        assert converge(converger(store), ANNOUNCED).status is Status.CURRENT
        assert {name for name, _, _ in store.calls} == {"stat"}

    def test_one_that_is_not_finished_is_not_begun_again(self, store: FakeMinio) -> None:
        converge(converger(store), ANNOUNCED)
        del store.objects[SMALL.bucket, "thumbs/a"]
        store.calls.clear()
        assert converge(converger(store), ANNOUNCED).status is Status.RENDERED
        assert store.written() == [(SMALL.bucket, "thumbs/a")]

    def test_one_that_is_gone(self, store: FakeMinio) -> None:
        store.delete("a")
        assert converge(converger(store), ANNOUNCED) == Settled(ANNOUNCED, Status.MISSING)
        assert made_of(store) == [None, None]

    def test_of_one_that_is_gone_what_is_there_is_removed(self, store: FakeMinio) -> None:
        converge(converger(store), ANNOUNCED)
        store.delete("a")
        del store.objects[LARGE.bucket, "a"]
        settled = converge(converger(store, delete_renditions=True), ANNOUNCED)
        assert settled.status is Status.MISSING
        assert made_of(store) == [None, None]

    def test_a_bad_one(self, store: FakeMinio) -> None:
        store.put("a", b"junk")
        announced = replace(ANNOUNCED, size=4)
        settled = converge(converger(store), announced)
        assert (settled.status, settled.etag) == (Status.REJECTED, etag(b"junk"))

    @pytest.mark.parametrize("claimed", [1, 2000])
    def test_one_over_the_limit_whatever_was_claimed(self, store: FakeMinio, claimed: int) -> None:
        store.put("a", bytes(1001))
        settled = converge(converger(store), replace(ANNOUNCED, size=claimed))
        assert (settled.status, settled.etag) == (Status.REJECTED, etag(bytes(1001)))
        assert settled.reason == "too large"


class TestSourceMovesOn:
    @pytest.mark.parametrize(
        ("moment", "bucket"),
        [
            ("stat", SOURCE),
            ("stat", SMALL.bucket),
            ("download", SOURCE),
            ("upload", LARGE.bucket),
            ("upload", SMALL.bucket),
        ],
    )
    def test_overwritten(self, store: FakeMinio, moment: str, bucket: str) -> None:
        store.before = once(moment, bucket, lambda: store.put("a", b"2"))
        assert converge(converger(store)) == Settled(REQUEST, Status.RENDERED, etag(b"2"))
        assert made_of(store) == [b"2", b"2"]

    def test_overwritten_after_the_last_upload(self, store: FakeMinio) -> None:
        one = converger(store)
        step = one.download(REQUEST)
        assert isinstance(step, Downloaded)
        resized = one.resize(step)
        assert isinstance(resized, Resized)
        uploaded = one.upload(resized)
        store.put("a", b"2")
        settled, written = one.confirm(uploaded)
        assert settled == Settled(REQUEST, Status.RENDERED, etag(b"2"))
        assert written
        assert written.key == "a"
        assert store.objects[SMALL.bucket, "thumbs/a"].metadata[SOURCE_ETAG] == etag(b"2")
        assert made_of(store) == [b"2", b"2"]

    @pytest.mark.parametrize(("switched_on", "left"), [(False, [b"1", b"1"]), (True, [None, None])])
    def test_deleted_meanwhile(
        self, *, store: FakeMinio, switched_on: bool, left: list[bytes | None]
    ) -> None:
        store.before = once("upload", SMALL.bucket, lambda: store.delete("a"))
        settled = converge(converger(store, delete_renditions=switched_on))
        assert settled.status is Status.MISSING
        assert made_of(store) == left

    def test_deleted_before_it_is_read(self, store: FakeMinio) -> None:
        store.before = once("download", SOURCE, lambda: store.delete("a"))
        assert converge(converger(store, delete_renditions=True)).status is Status.MISSING
        assert made_of(store) == [None, None]

    def test_recreated_while_its_renditions_are_removed(self, store: FakeMinio) -> None:
        one = converger(store, delete_renditions=True)
        converge(one)
        store.delete("a")
        store.before = once("remove", SMALL.bucket, lambda: store.put("a", b"3"))
        assert converge(one) == Settled(REQUEST, Status.RENDERED, etag(b"3"))
        assert made_of(store) == [b"3", b"3"]

    def test_a_single_wrong_answer_removes_nothing(self, store: FakeMinio) -> None:
        """A stat that finds nothing, because of a proxy, say, while the listing has the object."""
        one = converger(store, delete_renditions=True)
        converge(one)
        with mock.patch.object(store, "stat", return_value=None):
            settled = one.download(REQUEST)
        assert isinstance(settled, Settled)
        assert settled.status is Status.REJECTED
        assert "lists it" in settled.reason
        assert made_of(store) == [b"1", b"1"]

    def test_recreated_before_its_absence_is_confirmed(self, store: FakeMinio) -> None:
        one = converger(store, delete_renditions=True)
        converge(one)
        store.delete("a")
        store.before = once("is_listed", SOURCE, lambda: store.put("a", b"3"))
        assert converge(one) == Settled(REQUEST, Status.RENDERED, etag(b"3"))
        assert "remove" not in {name for name, _, _ in store.calls}

    def test_nothing_is_removed_if_the_listing_fails(self, store: FakeMinio) -> None:
        one = converger(store, delete_renditions=True)
        converge(one)
        store.delete("a")
        store.errors["a"] = UserError("no bucket")
        with (
            mock.patch.object(store, "stat", return_value=None),
            pytest.raises(UserError, match="no bucket"),
        ):
            converge(one)
        assert made_of(store) == [b"1", b"1"]

    def test_replaced_by_an_object_that_can_not_be_read(self, store: FakeMinio) -> None:
        """An upload with a customer's key, say, while its renditions are made."""
        refused = PermanentError("encrypted")
        store.before = once("upload", SMALL.bucket, lambda: store.errors.update(a=refused))
        settled = converge(converger(store, renditions=(SMALL,)))
        assert (settled.status, settled.reason) == (Status.REJECTED, "encrypted")

    def test_a_removal_leaves_a_rendition_that_can_not_be(self, store: FakeMinio) -> None:
        """Its key is longer than a server allows, say: nothing is there to be removed."""
        converge(converger(store))
        store.delete("a")
        store.errors["thumbs/a"] = PermanentError("no such key can be")
        assert converge(converger(store, delete_renditions=True)).status is Status.MISSING
        assert store.keys(LARGE.bucket) == []

    def test_overwritten_for_ever(self, store: FakeMinio) -> None:
        numbers = iter(range(10**6))
        store.before = once(
            "upload", SMALL.bucket, lambda: store.put("a", b"%d" % next(numbers)), times=10**6
        )
        assert converge(converger(store)).status is Status.BUSY
        assert next(numbers) == ROUNDS_MAX + 1
        # The one who touched it last has looked afterwards, and says so.
        assert store.calls[-1] == ("stat", SOURCE, "a")


class TestMissingBucket:
    def test_the_other_renditions_are_made(self, store: FakeMinio) -> None:
        one = converger(store)
        resized = one.resize(Downloaded(REQUEST, original(b"1"), frozenset(("large", "small"))))
        assert isinstance(resized, Resized)
        with mock.patch.object(store, "upload", side_effect=missing(store, LARGE.bucket)):
            settled = one.upload(resized)
        assert settled.status is Status.RENDERED
        assert settled.unwritten == f"no bucket {LARGE.bucket!r}"
        assert made_of(store) == [None, b"1"]
        assert converge(one).unwritten == ""
        assert made_of(store) == [b"1", b"1"]


def original(data: bytes) -> Original:
    return Original("a", etag(data), None, data)


def missing(store: FakeMinio, bucket: str) -> Callable[..., None]:
    upload = store.upload

    def refuse(to: str, *arguments: Any, **options: Any) -> None:
        if to == bucket:
            msg = f"no bucket {bucket!r}"
            raise MissingBucketError(msg)
        upload(to, *arguments, **options)

    return refuse


class TestMetadataThatASpecReads:
    """The focal point is as much a part of the source as its bytes."""

    def test_new_metadata_makes_what_reads_it_anew(self, store: FakeMinio) -> None:
        one = converger(store, renditions=(*SPECS, FOCAL))
        converge(one)
        store.calls.clear()
        store.put("a", b"1", metadata={"focal-point": "0.3,0.7"})
        assert converge(one).status is Status.RENDERED
        assert store.written() == [(FOCAL.bucket, "a")]
        assert converge(one).status is Status.CURRENT

    def test_what_nothing_reads_makes_nothing_anew(self, store: FakeMinio) -> None:
        one = converger(store, renditions=(*SPECS, FOCAL))
        converge(one)
        store.put("a", b"1", metadata={"colour": "red"})
        assert converge(one).status is Status.CURRENT

    def test_the_renderer_gets_the_point(self, store: FakeMinio) -> None:
        seen: list[str] = []

        class Watching(FakeRenderer):
            def render(self, data: bytes, renditions: Sequence[Rendition]) -> list[Rendered]:
                seen.extend(spec.position for spec in renditions)
                return super().render(data, renditions)

        store.put("a", b"1", metadata={"focal-point": "0.3, 0.7"})
        converge(converger(store, renditions=(FOCAL,), renderer=Watching()))
        assert seen == ["0.3,0.7"]

    @pytest.mark.parametrize("moment", ["download", "upload"])
    def test_metadata_that_changes_meanwhile(self, store: FakeMinio, moment: str) -> None:
        """As when an object is copied onto itself: its bytes and etag stay."""
        one = converger(store, renditions=(FOCAL,))
        bucket = SOURCE if moment == "download" else FOCAL.bucket
        changed = {"focal-point": "0.3,0.7"}
        store.before = once(moment, bucket, lambda: store.put("a", b"1", metadata=changed))
        assert converge(one).status is Status.RENDERED
        found = store.objects[FOCAL.bucket, "a"]
        assert found.metadata["spec-digest"] == FOCAL.resolved(changed).digest

    def test_a_point_that_is_none_is_a_dead_letter_for_that_point_only(
        self, store: FakeMinio
    ) -> None:
        store.put("a", b"1", metadata={"focal-point": "left"})
        settled = converge(converger(store, renditions=(FOCAL,)))
        assert settled.status is Status.REJECTED
        assert "x-amz-meta-focal-point: 'left' must be X,Y" in settled.reason
        assert (settled.etag, settled.metadata_read) == (etag(b"1"), "'left'")
        store.put("a", b"1", metadata={"focal-point": "0,1"})
        assert converge(converger(store, renditions=(FOCAL,))).status is Status.RENDERED


class TestHeaders:
    def test_content_type_and_cache_control_are_set(self, store: FakeMinio) -> None:
        cached = LARGE.model_copy(update={"cache_control": "max-age=60"})
        converge(converger(store, renditions=(cached, SMALL)))
        large, small = (store.objects[spec.bucket, spec.key_for("a")] for spec in SPECS)
        assert (large.content_type, large.cache_control) == ("image/png", "max-age=60")
        assert (small.content_type, small.cache_control) == ("image/png", None)

    def test_a_set_format_is_in_the_key(self, store: FakeMinio) -> None:
        webp = LARGE.model_copy(update={"format": "webp"})
        one = converger(store, renditions=(webp,))
        converge(one)
        assert store.keys(LARGE.bucket) == ["a.webp"]
        assert converge(one).status is Status.CURRENT


class TestRejected:
    @pytest.mark.parametrize("data", [b"junk", bytes(2000)], ids=["undecodable", "too large"])
    def test_says_why_and_of_what(self, store: FakeMinio, data: bytes) -> None:
        store.put("a", data)
        settled = converge(converger(store))
        assert settled.status is Status.REJECTED
        assert settled.etag == etag(data)
        assert settled.reason
        assert settled.error_class == "PermanentError"

    def test_replaced_by_a_good_one_meanwhile(self, store: FakeMinio) -> None:
        store.put("a", b"junk")
        step = converger(store).download(REQUEST)
        assert isinstance(step, Downloaded)
        rejected = converger(store).resize(step)
        assert isinstance(rejected, Settled)
        store.put("a", b"2")
        settled, _ = converger(store).confirm(rejected)
        assert settled.status is Status.RENDERED
        assert made_of(store) == [b"2", b"2"]

    def test_a_good_one_replaced_by_a_bad_one(self, store: FakeMinio) -> None:
        store.before = once("upload", SMALL.bucket, lambda: store.put("a", b"junk"))
        settled = converge(converger(store))
        assert (settled.status, settled.etag) == (Status.REJECTED, etag(b"junk"))

    def test_a_key_that_can_not_be(self, store: FakeMinio) -> None:
        store.errors["a"] = PermanentError("no such key can be")
        settled = converge(converger(store))
        assert (settled.status, settled.etag) == (Status.REJECTED, None)

    def test_a_rendition_that_the_server_refuses(self, store: FakeMinio) -> None:
        def refuse(name: str, bucket: str, key: str) -> None:
            del key
            if (name, bucket) == ("upload", SMALL.bucket):
                raise PermanentError("KeyTooLongError")

        store.before = refuse
        assert converge(converger(store)).status is Status.REJECTED


class TestLetters:
    """What is sent, and the look at the source that follows."""

    def answer(
        self, store: FakeMinio, *settled: Settled, meanwhile: Callable[[], None] = lambda: None
    ) -> tuple[list[Settled], list[tuple[list[str], list[str]]]]:
        sent: list[tuple[list[str], list[str]]] = []

        def send(rejected: Sequence[Settled], taken_back: Sequence[Request]) -> None:
            sent.append(
                ([one.etag or "" for one in rejected], [request.key for request in taken_back])
            )
            meanwhile()

        outcomes = converger(store).answer([Confirmed(one, None) for one in settled], send)
        return [settled for settled, _ in outcomes], sent

    def test_one_look_at_each_that_has_or_had_one(self, store: FakeMinio) -> None:
        had = Request("had", 1, has_dead_letter=True)
        for key in ("had", "bad", "good"):
            store.put(key, b"junk" if key == "bad" else b"1")
        settled = [
            Settled(had, Status.CURRENT, etag(b"1")),
            Settled(Request("bad", 1), Status.REJECTED, etag(b"junk")),
            Settled(Request("good", 1), Status.RENDERED, etag(b"1")),
        ]
        ended, sent = self.answer(store, *settled)
        assert {one.request.key: one.status for one in ended} == {
            one.request.key: one.status for one in settled
        }
        assert sent == [([etag(b"junk")], ["had"])]
        assert store.calls == [("stat", SOURCE, "had"), ("stat", SOURCE, "bad")]

    def test_a_key_that_can_not_be_is_not_looked_at(self, store: FakeMinio) -> None:
        store.errors["a"] = PermanentError("no such key can be")
        [ended], sent = self.answer(store, Settled(REQUEST, Status.REJECTED))
        assert ended.status is Status.REJECTED
        assert sent == [([""], [])]

    def test_of_an_object_that_never_stays(self, store: FakeMinio) -> None:
        numbers = iter(range(10**6))
        store.put("a", b"junk")
        rejected = Settled(REQUEST, Status.REJECTED, etag(b"junk"))
        [ended], sent = self.answer(
            store, rejected, meanwhile=lambda: store.put("a", b"junk %d" % next(numbers))
        )
        assert ended.status is Status.BUSY
        assert ended.request.has_dead_letter
        assert len(sent) == ROUNDS_MAX

    def test_a_busy_one_leaves_it_to_its_next_run(self, store: FakeMinio) -> None:
        busy = Settled(Request("a", 1, has_dead_letter=True), Status.BUSY)
        assert self.answer(store, busy) == ([busy], [([], [])])


class TestServerAway:
    @pytest.fixture(autouse=True)
    def _no_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)

    @pytest.mark.parametrize("moment", ["stat", "download", "upload"])
    def test_is_tried_again(self, store: FakeMinio, moment: str) -> None:
        failures = iter(range(3))

        def away(name: str, bucket: str, key: str) -> None:
            del bucket, key
            if name == moment and next(failures, None) is not None:
                raise TransientError("away")

        store.before = away
        assert converge(converger(store, retry_s=60.0)).status is Status.RENDERED
        assert made_of(store) == [b"1", b"1"]

    def test_is_given_up_with_the_server_s_own_words(self, store: FakeMinio) -> None:
        store.errors["a"] = TransientError("MinIO at M does not answer")
        with pytest.raises(TransientError, match="MinIO at M does not answer"):
            converge(converger(store, retry_s=0.05))
        assert len(store.calls) > 1

    def test_no_second_try_when_switched_off(self, store: FakeMinio) -> None:
        store.errors["a"] = TransientError("away")
        with pytest.raises(TransientError):
            converge(converger(store, retry_s=0.0))
        assert len(store.calls) == 1

    def test_what_a_user_must_mend_is_not_tried_again(self, store: FakeMinio) -> None:
        store.errors["a"] = UserError("refuses access")
        with pytest.raises(UserError):
            converge(converger(store, retry_s=60.0))
        assert len(store.calls) == 1


class TestBudget:
    def test_a_batch_that_is_full_leaves_an_object_to_the_end(self, store: FakeMinio) -> None:
        budget = Budget(10)
        store.put("a", bytes(6))
        store.put("b", bytes(6))
        one = converger(store)
        assert isinstance(one.download(Request("a", 1), budget), Downloaded)
        deferred = one.download(Request("b", 1), budget)
        assert isinstance(deferred, Settled)
        assert deferred.status is Status.DEFERRED
        assert ("download", SOURCE, "b") not in store.calls
        settled, written = one.confirm(deferred)
        assert settled.status is Status.RENDERED
        assert written
        assert made_of(store, "b") == [bytes(6), bytes(6)]

    def test_what_was_announced_takes_what_was_claimed(self, store: FakeMinio) -> None:
        budget = Budget(10)
        one = converger(store)
        store.put("a", bytes(6))
        assert isinstance(one.download(replace(ANNOUNCED, size=6), budget), Downloaded)
        deferred = one.download(replace(ANNOUNCED, size=6), budget)
        assert isinstance(deferred, Settled)
        assert deferred.status is Status.DEFERRED
        assert store.calls.count(("download", SOURCE, "a")) == 1

    def test_more_than_was_claimed_is_not_read(self, store: FakeMinio) -> None:
        budget = Budget(10)
        one = converger(store)
        store.put("a", bytes(6))
        store.put("b", bytes(6))
        assert isinstance(one.download(replace(ANNOUNCED, size=6), budget), Downloaded)
        deferred = one.download(replace(ANNOUNCED, key="b"), budget)
        assert isinstance(deferred, Settled)
        assert deferred.status is Status.DEFERRED

    def test_a_claim_that_was_wrong_takes_nothing(self, store: FakeMinio) -> None:
        store.put("a", bytes(9))
        one = converger(store)
        assert isinstance(one.download(replace(ANNOUNCED, size=6), Budget(10)), Downloaded)

    def test_what_is_larger_than_it_was_is_left_to_the_end(self, store: FakeMinio) -> None:
        """As an object with a Content-Encoding, or one that is overwritten after the look."""
        store.put("a", bytes(6))
        store.before = once("download", SOURCE, lambda: store.put("a", bytes(900)))
        one = converger(store)
        deferred = one.download(REQUEST, Budget(10))
        assert isinstance(deferred, Settled)
        assert deferred.status is Status.DEFERRED
        settled, _ = one.confirm(deferred)
        assert settled.status is Status.RENDERED
        assert made_of(store) == [bytes(900), bytes(900)]

    def test_what_is_current_takes_none(self, store: FakeMinio) -> None:
        one = converger(store)
        converge(one)
        budget = Budget(10)
        for _ in range(20):
            settled = one.download(REQUEST, budget)
            assert isinstance(settled, Settled)
            assert settled.status is Status.CURRENT


class KilledError(BaseException):
    """The end of a worker in the middle of its work."""


@dataclass
class Worker:
    """A run that works off events one by one, and stops ahead of each call of the store."""

    converger: Converger
    events: deque[Request]
    letters: dict[str, str | None]
    outcomes: list[Settled]
    is_idle: bool = True
    is_killed: bool = False
    is_over: bool = False
    failure: BaseException | None = None
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    stopped: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def start(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def step(self, *, kill: bool = False) -> None:
        """Let it make its next call."""
        self.is_killed = kill and not self.is_idle
        self.go.release()
        assert self.stopped.acquire(timeout=60)
        if self.failure:
            raise self.failure

    def end(self) -> None:
        self.is_over = True
        self.go.release()
        self.thread.join(60)
        assert not self.thread.is_alive()

    def pause(self) -> None:
        self.stopped.release()
        self.go.acquire()
        if self.is_killed or self.is_over:
            self.is_killed = False
            raise KilledError

    def _work_off(self, event: Request) -> None:
        self.pause()
        request = replace(event, has_dead_letter=event.key in self.letters)

        def send(rejected: Sequence[Settled], taken_back: Sequence[Request]) -> None:
            if rejected or taken_back:
                self.pause()
            self.letters.update({one.request.key: one.etag for one in rejected})
            for one in taken_back:
                self.letters.pop(one.key, None)

        settled = converge(self.converger, request)
        [(settled, _)] = self.converger.answer([Confirmed(settled, None)], send)
        if settled.status is Status.BUSY:
            self.events.append(event)
        self.outcomes.append(settled)

    def _run(self) -> None:
        self.go.acquire()
        while not self.is_over:
            if self.events:
                event = self.events.popleft()
                self.is_idle = False
                try:
                    self._work_off(event)
                except KilledError:
                    # Dagster repeats the run.
                    self.events.append(event)
                except BaseException as error:  # noqa: BLE001  Raised by `step`.
                    self.failure = error
                self.is_idle = True
            self.stopped.release()
            self.go.acquire()


CHANGES = st.sampled_from(["good", "good", "junk", "delete"])
# A run goes on for some calls, for changes at every single call would never let one end.
STEPS = st.tuples(st.sampled_from(["one", "two"]), st.integers(1, 12)).map(
    lambda drawn: " ".join([drawn[0]] * drawn[1])
)
KILLS = st.sampled_from(["kill one", "kill two"])


@settings(max_examples=400, print_blob=True)
@given(
    schedule=st.lists(st.one_of(CHANGES, STEPS, STEPS, KILLS), min_size=2, max_size=12),
    delete_renditions=st.booleans(),
    rounds=st.sampled_from([1, 2, ROUNDS_MAX]),
    are_announced=st.booleans(),
)
@example(
    schedule=["one " * 9, "delete", "two two", "good", "one " * 9],
    delete_renditions=True,
    rounds=ROUNDS_MAX,
    are_announced=False,
)
# A letter is written late, taken back late, and a busy object's stale rendition is written last.
@example(
    schedule=["junk", "one " * 7, "good", "two " * 40],
    delete_renditions=False,
    rounds=ROUNDS_MAX,
    are_announced=False,
)
@example(
    schedule=["junk", "one " * 18, "good", "one " * 9, "junk", "two " * 40],
    delete_renditions=False,
    rounds=ROUNDS_MAX,
    are_announced=False,
)
@example(
    schedule=["one " * 6, "good", "two " * 40, "one " * 7, "good", "two " * 40],
    delete_renditions=False,
    rounds=1,
    are_announced=False,
)
def test_any_interleaving_of_two_runs_ends_with_the_last_source(
    *, schedule: list[str], delete_renditions: bool, rounds: int, are_announced: bool
) -> None:
    """Each change of the source is announced once; any run may be late, or killed and repeated."""
    store = FakeMinio()
    events: deque[Request] = deque()
    letters: dict[str, str | None] = {}
    outcomes: list[Settled] = []
    workers = {
        name: Worker(
            converger(store, delete_renditions=delete_renditions, source_max_bytes=10**6),
            events,
            letters,
            outcomes,
        )
        for name in ("one", "two")
    }
    for worker in workers.values():
        worker.start()
    try:
        with mock.patch.object(module, "ROUNDS_MAX", rounds):
            source = _play(["good", *schedule], store, events, workers, are_announced=are_announced)
    finally:
        for worker in workers.values():
            worker.end()

    is_junk = source is not None and source.startswith(b"junk")
    assert letters == ({"a": etag(source)} if is_junk else {})
    if source is None:
        if delete_renditions:
            assert made_of(store) == [None, None]
        assert any(outcome.status is Status.MISSING for outcome in outcomes)
    elif is_junk:
        assert any(
            (outcome.status, outcome.etag) == (Status.REJECTED, etag(source))
            for outcome in outcomes
        )
    else:
        assert made_of(store) == [source, source]


def _play(
    schedule: list[str],
    store: FakeMinio,
    events: deque[Request],
    workers: dict[str, Worker],
    *,
    are_announced: bool,
) -> bytes | None:
    def pause(*_: str) -> None:
        next(one for one in workers.values() if one.thread is threading.current_thread()).pause()

    store.before = pause
    source: bytes | None = None
    for number, action in enumerate(schedule):
        match action.split():
            case ["delete"]:
                source = None
                store.delete("a")
                events.append(REQUEST)
            case [("good" | "junk") as kind]:
                source = f"{kind} {'.' * number}".encode()
                store.put("a", source)
                # An event can come late, and then claims what is not there any more.
                announced = replace(ANNOUNCED, size=len(source))
                events.append(announced if are_announced else REQUEST)
            case ["kill", name]:
                workers[name].step(kill=True)
            case names:
                for name in names:
                    workers[name].step()
    # One after the other, so that the last one has been late for as long as can be.
    for worker in workers.values():
        for _ in range(10_000):
            if not events and worker.is_idle:
                break
            worker.step()
        else:
            raise AssertionError("the runs do not end")
    return source
