"""Which objects a removed rendition left behind, and which belong to others."""

import dataclasses
import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from resize_pipeline.commands.removed_renditions import (
    Place,
    Places,
    RemovedRendition,
    delete_objects,
    left_objects,
    places_of,
    removed_renditions,
)
from resize_pipeline.errors import MissingBucketError, RefusedError, UserError
from resize_pipeline.renditions.objects import SOURCE_ETAG, SPEC_DIGEST, ObjectInfo
from resize_pipeline.renditions.spec import Rendition

SOURCE = "images"
NOW = dt.datetime.now(dt.UTC)
OURS = {SOURCE_ETAG: "e", SPEC_DIGEST: "d"}


def spec(name: str, bucket: str, prefix: str = "") -> Rendition:
    return Rendition(name=name, width=9, height=9, bucket=bucket, prefix=prefix)


def removed(places: Sequence[Place], *specs: Rendition) -> dict[Place, tuple[bool, tuple]]:
    found = removed_renditions(Places(set(places)), specs, SOURCE)
    return {one.place: (one.is_moved, one.kept) for one in found}


OLD = Place("old", "bucket", "old/")


class TestPlaces:
    def test_a_rendition_that_is_gone(self) -> None:
        assert removed([OLD, OLD], spec("large", "other")) == {OLD: (False, ())}

    def test_a_rendition_that_was_moved(self) -> None:
        for place in (("bucket", ""), ("bucket", "new/"), ("bucket", "OLD/"), ("other", "old/")):
            assert removed([OLD], spec("old", *place)).get(OLD) == (
                None if place == ("bucket", "") else (True, ())
            )

    def test_a_place_that_a_current_rendition_covers_is_no_former_one(self) -> None:
        for prefix in ("old/", "ol", ""):
            assert removed([OLD], spec("renamed", "bucket", prefix)) == {}

    def test_what_is_below_it_and_another_s_is_kept(self) -> None:
        deeper = Place("deeper", "bucket", "old/deeper/")
        beside = Place("beside", "bucket", "older/")
        found = removed(
            [OLD, deeper, beside], spec("a", "bucket", "old/a/"), spec("b", "other", "old/")
        )
        assert found == {
            OLD: (False, ("old/a/", "old/deeper/")),
            deeper: (False, ()),
            beside: (False, ()),
        }

    def test_nothing_in_the_source_bucket_is_a_rendition_s(self) -> None:
        """A former rendition's bucket may have become the source bucket."""
        assert removed([Place("old", SOURCE, "")], spec("large", "other")) == {}


@dataclasses.dataclass
class Store:
    """Buckets whose listings include the metadata, or do not."""

    objects: dict[str, dict[str, str] | None]
    lists_metadata: bool = True
    error: Exception | None = None
    endpoint: str = "http://minio"
    access_key: str = "somebody"
    stats: list[str] = dataclasses.field(default_factory=list)
    requests: list[list[str]] = dataclasses.field(default_factory=list)

    def info(self, key: str, metadata: dict[str, str] | None) -> ObjectInfo:
        return ObjectInfo(key, "e", None, 10, NOW, metadata)

    def list_objects(
        self, bucket: str, prefix: str = "", *, with_metadata: bool = False
    ) -> Iterator[ObjectInfo]:
        assert bucket == "bucket"
        assert with_metadata
        if self.error:
            raise self.error
        for key, metadata in sorted(self.objects.items()):
            if key.startswith(prefix):
                yield self.info(key, metadata if self.lists_metadata else None)

    def stat(self, bucket: str, key: str) -> ObjectInfo | None:
        assert bucket == "bucket"
        self.stats.append(key)
        metadata = self.objects[key]
        return None if metadata is None else self.info(key, metadata)

    def remove_all(self, bucket: str, keys: Sequence[str]) -> None:
        assert bucket == "bucket"
        self.requests.append(list(keys))


LEFT = RemovedRendition(OLD, is_moved=False, kept=("old/a/",))


class TestObjects:
    @pytest.mark.parametrize("lists_metadata", [True, False])
    def test_only_ours_and_not_what_is_kept(self, *, lists_metadata: bool) -> None:
        others = [{}, {SOURCE_ETAG: "e"}, {SPEC_DIGEST: "d"}, {"a": "b"}]
        store = Store(
            {
                "old/1": OURS,
                "old/a/1": OURS,
                "old/z": {**OURS, "source-version-id": "v"},
                "other/1": OURS,
                **{f"old/other-{number}": other for number, other in enumerate(others)},
            },
            lists_metadata=lists_metadata,
        )
        assert [one.key for one in left_objects(store, LEFT)] == ["old/1", "old/z"]
        assert bool(store.stats) is not lists_metadata
        assert "old/a/1" not in store.stats

    def test_one_that_is_gone_since_it_was_listed(self) -> None:
        store = Store({"old/1": None, "old/2": OURS}, lists_metadata=False)
        assert [one.key for one in left_objects(store, LEFT)] == ["old/2"]

    def test_a_bucket_that_is_gone_holds_none(self) -> None:
        store = Store({}, error=MissingBucketError("no bucket"))
        assert list(left_objects(store, LEFT)) == []
        assert list(delete_objects(store, LEFT)) == []

    def test_a_bucket_that_is_refused(self) -> None:
        with pytest.raises(UserError) as refused:
            list(left_objects(Store({}, error=RefusedError("no")), LEFT))
        said = str(refused.value)
        for word in ("'bucket'", "'old'", "'somebody'", "MINIO_ROOT_USER"):
            assert word in said
        assert "\n" not in said

    def test_are_deleted_by_the_thousand_while_they_are_listed(self) -> None:
        store = Store({f"old/{number:04}": OURS for number in range(2500)})
        gone = delete_objects(store, LEFT)
        assert next(gone) == (1000, 10_000)
        assert [len(keys) for keys in store.requests] == [1000]
        assert list(gone) == [(1000, 10_000), (500, 5000)]
        assert sorted(key for keys in store.requests for key in keys) == sorted(store.objects)


class TestNames:
    def test_all_former_places_of_the_rendition(self) -> None:
        places = [OLD, Place("old", "other", ""), Place("older", "bucket", "x")]
        found = removed_renditions(Places(set(places)), [spec("large", "b1b")], SOURCE)
        chosen = places_of(found, "old", Path("renditions.yaml"))
        assert {one.place for one in chosen} == set(places[:2])

    @pytest.mark.parametrize("name", ["large", "ol", ""])
    def test_another_name_is_refused(self, name: str) -> None:
        found = removed_renditions(Places({OLD}), [spec("large", "b1b")], SOURCE)
        with pytest.raises(UserError, match=r"not in renditions.yaml.*: old$") as refused:
            places_of(found, name, Path("renditions.yaml"))
        assert f"no removed rendition {name!r}" in str(refused.value)
