"""Which objects a run looks at."""

import dataclasses
import datetime as dt
import json
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resize_pipeline.delivery.batches import Plan, Request, SourceMessage
from resize_pipeline.delivery.reconciliation import unreconciled
from resize_pipeline.delivery.requests import (
    Requested,
    check_newest,
    letter_identity,
    letter_key,
    with_dead_letters,
)
from resize_pipeline.errors import UserError
from resize_pipeline.renditions.objects import ObjectInfo, Original, identity
from resize_pipeline.renditions.spec import Rendition
from tests.dagster.fakes import event

LARGE = Rendition(name="large", width=100, height=100, bucket="large-bucket")
SMALL = Rendition(name="small", width=10, height=10, bucket="small-bucket", prefix="thumbs/")
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def source(key: str, etag: str = "e1") -> ObjectInfo:
    return ObjectInfo(key, etag, None, 1, NOW, {})


def made(spec: Rendition, key: str, etag: str = "e1") -> ObjectInfo:
    metadata = identity(Original(key, etag, None, b""), spec)
    return ObjectInfo(spec.key_for(key), "other", None, 1, NOW, metadata)


def never(spec: Rendition, key: str) -> ObjectInfo | None:
    raise AssertionError(f"looked up {spec.name} of {key}")


def lacking(
    sources: Iterable[ObjectInfo],
    large: Iterable[ObjectInfo],
    small: Iterable[ObjectInfo],
    is_open=lambda _, names: bool(names),
    look_up=never,
    *,
    with_orphans: bool = False,
) -> list[tuple[str, list[str]]]:
    sources = list(sources)
    by_key = {item.key: item for item in sources}
    found = unreconciled(
        sources,
        [(LARGE, large), (SMALL, small)],
        is_open,
        look_up,
        find_source=by_key.get if with_orphans else None,
    )
    return [(item.key, names) for item, names in found]


def found_of(
    keys: Iterable[str], spec: Rendition, listing: Iterable[ObjectInfo], look_up
) -> list[str]:
    by_key = {key: source(key) for key in keys}
    found = unreconciled(
        by_key.values(),
        [(spec, listing)],
        lambda _, names: bool(names),
        look_up,
        find_source=by_key.get,
    )
    return [item.key for item, _ in found]


def in_order(items: Iterable[ObjectInfo]) -> list[ObjectInfo]:
    return sorted(items, key=lambda item: item.key.encode())


class TestUnreconciled:
    def test_an_empty_bucket(self) -> None:
        assert lacking([], [made(LARGE, "left over")], []) == []

    def test_each_rendition_is_judged_by_itself(self) -> None:
        sources = [source(key) for key in "abcd"]
        large = [made(LARGE, key) for key in "abd"]
        small = [made(SMALL, key) for key in "acd"]
        assert lacking(sources, large, small) == [("b", ["small"]), ("c", ["large"])]

    def test_another_etag_or_another_spec(self) -> None:
        changed = LARGE.model_copy(update={"quality": 1})
        sources = [source("a"), source("b", "e2"), source("c")]
        large = [made(LARGE, "a"), made(LARGE, "b", "e1"), made(changed, "c")]
        small = [made(SMALL, "a"), made(SMALL, "b", "e2"), made(SMALL, "c")]
        assert lacking(sources, large, small) == [("b", ["large"]), ("c", ["large"])]

    def test_another_version_of_the_same_bytes_is_current(self) -> None:
        sources = [dataclasses.replace(source("a"), version_id="v2")]
        assert lacking(sources, [made(LARGE, "a")], [made(SMALL, "a")]) == []

    def test_renditions_without_a_source_are_passed(self) -> None:
        sources = [source("b"), source("d")]
        large = [made(LARGE, key) for key in "abcde"]
        assert lacking(sources, large, [made(SMALL, key) for key in "abcde"]) == []

    def test_the_caller_judges_what_is_open(self) -> None:
        """A dead letter answers for what is lacking, and is to be taken back when nothing is."""
        sources = [source(key) for key in "abc"]
        judged: dict[str, list[str]] = {}

        def is_open(item: ObjectInfo, names: Sequence[str]) -> bool:
            judged[item.key] = list(names)
            return item.key != "a"

        small = [made(SMALL, key) for key in "bc"]
        assert lacking(sources, [made(LARGE, "c")], small, is_open) == [("b", ["large"]), ("c", [])]
        assert judged == {"a": ["large", "small"], "b": ["large"], "c": []}

    def test_renditions_of_ours_without_a_source(self) -> None:
        sources = [source("b")]
        theirs = dataclasses.replace(made(LARGE, "e"), metadata={"by": "others"})
        large = [made(LARGE, "a"), made(LARGE, "b"), made(LARGE, "d"), theirs]
        small = [made(SMALL, key) for key in "bcd"]
        found = unreconciled(
            sources,
            [(LARGE, large), (SMALL, small)],
            lambda _, names: bool(names),
            never,
            find_source={item.key: item for item in sources}.get,
        )
        assert [(item.key, names) for item, names in found] == [("a", []), ("c", []), ("d", [])]

    def test_an_orphan_in_a_listing_without_metadata_is_looked_up(self) -> None:
        small = [dataclasses.replace(made(SMALL, key), metadata=None) for key in "ab"]
        found: dict[str, ObjectInfo | None] = {"thumbs/a": made(SMALL, "a"), "thumbs/b": None}

        def look_up(_: Rendition, key: str) -> ObjectInfo | None:
            return found[key]

        assert lacking([], [], small, look_up=look_up, with_orphans=True) == [("a", [])]
        assert lacking([], [], small, look_up=never) == [], "nobody asks for them"

    def test_a_listing_without_metadata_is_looked_up(self) -> None:
        """Other S3 servers give none in a listing, and MinIO none without s3:GetObject."""
        bare = [dataclasses.replace(made(LARGE, key), metadata=None) for key in "ab"]
        asked: list[str] = []

        def look_up(spec: Rendition, key: str) -> ObjectInfo | None:
            asked.append(f"{spec.bucket}/{key}")
            return made(LARGE, key, "e1" if key == "a" else "e0")

        small = [made(SMALL, key) for key in "abc"]
        sources = [source(key) for key in "abc"]
        assert lacking(sources, bare, small, look_up=look_up) == [
            ("b", ["large"]),
            ("c", ["large"]),
        ]
        assert asked == ["large-bucket/a", "large-bucket/b"], "nor what is not there at all"

    def test_an_appended_extension_changes_the_order(self) -> None:
        """`a` comes before `a!`, and `a!.webp` before `a.webp`."""
        webp = LARGE.model_copy(update={"format": "webp"})
        keys = ["a", "a!", "a!!", "a/b", "b"]
        listing = sorted((made(webp, key) for key in keys), key=lambda item: item.key.encode())
        assert [item.key for item in listing] != [f"{key}.webp" for key in keys]
        there = {item.key: item for item in listing}
        asked: list[str] = []

        def look_up(spec: Rendition, key: str) -> ObjectInfo | None:
            del spec
            asked.append(key)
            return there.get(key)

        found = [*found_of(keys, webp, listing, look_up)]
        assert found == []
        assert asked == ["a!.webp", "a!!.webp"], "nothing but what lies behind"
        del there["a!.webp"]
        listing = [item for item in listing if item.key in there]
        assert found_of(keys, webp, listing, look_up) == ["a!"]
        assert found_of(["a!!"], webp, listing, look_up) == ["a", "a/b", "b"], "orphans"

    def test_the_metadata_that_a_spec_reads(self) -> None:
        focal = LARGE.model_copy(update={"fit": "cover", "position": "focal-point"})
        points = {"a": "0,0", "b": "0.3,0.7", "c": "left"}
        sources = [
            dataclasses.replace(source(key), metadata={"focal-point": point})
            for key, point in points.items()
        ]
        listing = [made(focal.resolved({"focal-point": "0,0"}), key) for key in points]
        listings = [(focal, listing)]
        found = unreconciled(
            sources, listings, lambda _, names: bool(names), never, find_source=None
        )
        assert [item.key for item, _ in found] == ["b", "c"]

    def test_listings_are_streams(self) -> None:
        """Millions of objects must not be read before the first is given."""

        def endless(of):
            number = 0
            while True:
                yield of(f"{number:09}")
                number += 1

        found = unreconciled(
            endless(source),
            [(LARGE, endless(lambda key: made(LARGE, key))), (SMALL, iter([]))],
            lambda _, names: bool(names),
            never,
            find_source=source,
        )
        assert [next(found)[0].key for _ in range(3)] == ["000000000", "000000001", "000000002"]

    @given(data=st.data(), with_orphans=st.booleans())
    def test_is_what_a_look_at_each_would_find(
        self, *, data: st.DataObject, with_orphans: bool
    ) -> None:
        """In the order of UTF-8, which is not that of UTF-16 nor of one's own language."""
        alphabet = "aAzä/-.0 ~\uffff\U0001f339"
        keys = st.text(alphabet, min_size=1, max_size=4)
        large = data.draw(st.sampled_from([LARGE, LARGE.model_copy(update={"format": "webp"})]))
        sources = data.draw(st.dictionaries(keys, st.sampled_from(["e1", "e2"]), max_size=12))
        listings = {
            spec: data.draw(
                st.dictionaries(
                    st.one_of(keys, st.sampled_from(sorted(sources) or ["x"])),
                    st.sampled_from(["e1", "e2"]),
                    max_size=12,
                )
            )
            for spec in (large, SMALL)
        }
        expected = {
            key: [spec.name for spec in (large, SMALL) if listings[spec].get(key) != sources[key]]
            for key in sources
        }

        by_key = {key: source(key, etag) for key, etag in sources.items()}
        there = {
            (spec, spec.key_for(key)): made(spec, key, etag)
            for spec, listing in listings.items()
            for key, etag in listing.items()
        }
        given = unreconciled(
            in_order(by_key.values()),
            [
                (spec, in_order(i for (of, _), i in there.items() if of == spec))
                for spec in listings
            ],
            lambda _, names: bool(names),
            lambda spec, key: there.get((spec, key)),
            find_source=by_key.get if with_orphans else None,
        )
        found = [(item.key, names) for item, names in given]
        orphans = {key for listing in listings.values() for key in listing} - set(sources)
        assert dict(found) == {key: names for key, names in expected.items() if names} | (
            {key: [] for key in orphans} if with_orphans else {}
        )
        if large is LARGE:
            assert [key for key, _ in found] == sorted(dict(found), key=str.encode)


def message(value: bytes, offset: int = 0) -> SourceMessage:
    return SourceMessage("events", 0, offset, b"k", value)


def read(*values: bytes) -> tuple[Requested, Plan]:
    result, planned = Requested(), Plan(started=0.0)
    for offset, value in enumerate(values):
        result.add(message(value, offset), "images", planned)
    return result, planned


class TestRead:
    def test_a_creation_asks_for_its_key(self) -> None:
        result, planned = read(event("a b", size=7))
        assert result.requests == {"a b": Request("a b", 7, message(event("a b", size=7)))}
        assert not planned.skipped

    def test_a_removal_asks_to_look_at_the_key(self) -> None:
        """What was removed may be the newest version only."""
        result, planned = read(event("a", name="s3:ObjectRemoved:Delete"))
        assert list(result.requests) == ["a"]
        assert planned.skipped == {"removals": 1}

    @pytest.mark.parametrize("name", ["s3:ObjectCreated:Put", "s3:ObjectRemoved:Delete"])
    def test_a_key_is_asked_for_once_by_its_newest_message(self, name: str) -> None:
        result, _ = read(event("a"), event("b"), event("a", name=name))
        assert list(result.requests) == ["a", "b"]
        asked_by = result.requests["a"].message
        assert asked_by
        assert asked_by.offset == 2

    def test_what_asks_for_nothing_is_counted(self) -> None:
        result, planned = read(event("a", name="s3:ObjectCreated:PutTagging"), b"junk", b"{}")
        assert result.requests == {}
        assert planned.skipped == {"ignored, no new bytes": 1, "malformed": 2}
        assert [one.offset for one, _ in result.malformed] == [1, 2]
        assert all(reason for _, reason in result.malformed)

    def test_other_buckets_are_never_read(self) -> None:
        """Whoever sends the event, or replays it."""
        document = json.loads(event("a"))
        document["Records"][0]["s3"]["bucket"]["name"] = "secrets"
        result, planned = read(json.dumps(document).encode())
        assert result.requests == {}
        assert planned.skipped == {"ignored, another bucket": 1}


class TestVersions:
    @staticmethod
    def info(version_id: str | None) -> ObjectInfo:
        return ObjectInfo("a", "e", version_id, 1, NOW, {})

    @pytest.mark.parametrize(("version_id", "asked"), [("v1", "v1"), (None, "null")])
    def test_the_newest_passes(self, version_id: str | None, asked: str) -> None:
        newest = self.info(version_id)
        check_newest("images", "a", asked, newest, newest)

    @pytest.mark.parametrize(
        ("newest", "is_there", "found", "remedy"),
        [
            ("v2", True, "is not the newest, the newest is 'v2'", "by copying it onto its own key"),
            ("v2", False, "does not exist, the newest is 'v2'", "omit the version"),
            (None, True, "is not the newest, the key has no object", "by copying it onto"),
            (None, False, "does not exist, the key has no object", "upload it again"),
        ],
    )
    def test_another_one_is_refused_with_what_helps(
        self, *, newest: str | None, is_there: bool, found: str, remedy: str
    ) -> None:
        named = self.info("v1") if is_there else None
        with pytest.raises(UserError) as refused:
            check_newest("images", "a", "v1", self.info(newest) if newest else None, named)
        said = str(refused.value)
        assert said.startswith(f"version 'v1' of 'a' in bucket 'images' {found}: ")
        assert remedy in said
        assert "\n" not in said


class TestLetters:
    def test_the_key_is_that_of_minio_s_message(self) -> None:
        assert letter_key("images", "a b/ü") == "images/a b/ü".encode()

    def test_another_content_or_another_spec_is_another_state(self) -> None:
        states = [letter_identity(etag, spec) for etag in ("e1", None) for spec in ("d1", "d2")]
        states += [letter_identity("e1", "d1", read) for read in ("'0,0'", "'0,1'")]
        assert len(set(states)) == 6

    def test_requests_are_marked_whose_letter_is_to_be_taken_back(self) -> None:
        requests = [Request("a", 1, message(b"x")), Request("b", 2)]
        marked = list(with_dead_letters(requests, "images", {b"images/a"}.__contains__))
        assert marked == [
            Request("a", 1, message(b"x"), has_dead_letter=True),
            Request("b", 2),
        ]
