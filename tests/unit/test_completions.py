"""What a completion event says, and which objects lack one."""

import datetime as dt
import json
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from resize_pipeline.delivery.batches import Known, Request, Settled, Status
from resize_pipeline.delivery.completions import Terms, completion, completion_identity
from resize_pipeline.delivery.reconciliation import ANSWERED, CURRENT, Scope, unreconciled_objects
from resize_pipeline.delivery.requests import letter_identity
from resize_pipeline.renditions.analyses import Analysed
from resize_pipeline.renditions.objects import SOURCE_ETAG, SPEC_DIGEST, ObjectInfo
from resize_pipeline.renditions.spec import Rendition

REPOSITORY = Path(__file__).parents[2]
SCHEMA = json.loads((REPOSITORY / "docs" / "completion.schema.json").read_text())
NOW = dt.datetime(2026, 5, 1, 12, 30, 15, 123456, tzinfo=dt.UTC)
LARGE = Rendition(name="large", width=100, height=100, bucket="large-bucket")
SMALL = Rendition(name="small", width=20, height=20, bucket="small-bucket", prefix="thumbs/")
TERMS = Terms("images", (LARGE, SMALL), "specs", "run")
KEYS = ("a", "a b/é.png", "🖼.jpg", 'quo"te\\', "new\nline\x1b[31m", "ü" * 512, "../../etc/passwd")


def settled(status: Status = Status.RENDERED, key: str = "a", **values: Any) -> Settled:
    source = ObjectInfo(key, "etag", "v1", 10, NOW, {}, "image/png")
    known = Known(source, {"large": 5, "small": 2})
    return replace(Settled(Request(key, 10), status, "etag", known=known), **values)


def event(one: Settled, terms: Terms = TERMS) -> dict[str, Any]:
    """Return the event, which follows the schema."""
    message = completion(one, terms, NOW)
    assert message
    key, value, headers = message
    assert value
    found = json.loads(value)
    jsonschema.validate(found, SCHEMA, format_checker=jsonschema.FormatChecker())
    assert key == f"images/{one.request.key}".encode()
    assert dict(headers)["content-type"].startswith(b"application/cloudevents+json")
    return found


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("status", [Status.RENDERED, Status.CURRENT])
def test_a_rendered_object(status: Status, key: str) -> None:
    found = event(settled(status, key))
    assert (found["type"], found["subject"]) == ("resize_pipeline.object.rendered", key)
    assert found["time"] == "2026-05-01T12:30:15.123+00:00"
    data = found["data"]
    assert (data["key"], data["version"], data["etag"]) == (key, "v1", "etag")
    assert (data["status"], data["reason"]) == ("rendered", None)
    large, small = data["renditions"]
    assert large == {
        "name": "large",
        "uri": f"s3://large-bucket/{key}",
        "bytes": 5,
        "digest": LARGE.digest,
    }
    assert small["uri"] == f"s3://small-bucket/thumbs/{key}"


def test_a_rejected_object_says_why_in_one_bounded_line() -> None:
    one = settled(Status.REJECTED, reason="no\npicture\x1b" + "x" * 5000, error_class="E")
    data = event(one)["data"]
    assert (data["status"], data["error_class"], data["renditions"]) == ("rejected", "E", [])
    assert data["reason"].startswith("no")
    assert data["reason"].isprintable()
    assert len(data["reason"]) <= 1000


def test_an_object_that_is_missing_or_was_not_read() -> None:
    gone = Settled(Request("a", 0), Status.MISSING)
    assert event(gone)["data"]["renditions"] == []
    assert event(gone)["type"] == "resize_pipeline.object.missing"
    unread = Settled(Request("a", 0), Status.REJECTED, None, "why", "E")
    assert event(unread)["data"]["etag"] is None


@pytest.mark.parametrize("status", [Status.BUSY, Status.POSTPONED, Status.DEFERRED])
def test_an_object_that_a_later_run_completes_has_none(status: Status) -> None:
    assert completion(settled(status), TERMS, NOW) is None
    assert completion(settled(unwritten="the bucket is missing"), TERMS, NOW) is None


def test_a_repetition_has_the_same_id_and_anything_else_another() -> None:
    first = event(settled())["id"]
    assert event(settled(Status.CURRENT), replace(TERMS, run="other"))["id"] == first
    others = [
        settled(key="b"),
        settled(etag="other"),
        settled(Status.REJECTED),
        settled(known=replace(settled().known, sizes={"large": 6, "small": 2})),
    ]
    assert len({first, *(event(one)["id"] for one in others)}) == 5


def test_the_message_of_the_documentation_follows_the_schema() -> None:
    text = (REPOSITORY / "docs" / "completions.md").read_text()
    [example] = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    shown = json.loads(example)
    jsonschema.validate(shown, SCHEMA, format_checker=jsonschema.FormatChecker())
    assert shown.keys() == event(settled()).keys()


def test_values_that_no_message_has_room_for_are_left_out() -> None:
    wide = [Analysed(name=f"a{i}", digest="0" * 16, values={"v": "x" * 90_000}) for i in range(7)]
    message = completion(settled(), TERMS, NOW, wide)
    assert message
    assert message[1]
    assert len(message[1]) < 600_000
    found = json.loads(message[1])
    jsonschema.validate(found, SCHEMA)
    results = found["data"]["analyses"]
    assert [bool(results[one.name]["values"]) for one in wide] == [True] * 5 + [False] * 2
    assert "see the catalogue" in results["a6"]["error"]


def test_it_has_what_the_analyses_of_a_rendered_picture_found() -> None:
    found = [
        Analysed(name="entropy", digest="1", values={"entropy": 7.5}),
        Analysed(name="blurhash", digest="2", error="why"),
    ]

    def analyses(status: Status) -> Any:
        message = completion(settled(status), TERMS, NOW, found)
        assert message
        assert message[1]
        shown = json.loads(message[1])
        jsonschema.validate(shown, SCHEMA)
        return shown["data"]["analyses"]

    assert analyses(Status.CURRENT) == {
        "entropy": {"values": {"entropy": 7.5}, "error": None},
        "blurhash": {"values": None, "error": "why"},
    }
    assert analyses(Status.REJECTED) == {}


@dataclass
class Index:
    """Newest messages, by key."""

    identities: dict[bytes, str] = field(default_factory=dict)
    is_complete: bool = True

    def __contains__(self, key: bytes) -> bool:
        return key in self.identities

    def answers(self, key: bytes, identity: str) -> bool:
        return self.identities.get(key) == identity


class Store:
    """One source object, with both renditions if it could be rendered."""

    def __init__(self, *, is_rendered: bool) -> None:
        self.is_rendered = is_rendered

    def list_objects(self, bucket: str, _: str, **__: Any) -> Any:
        source = ObjectInfo("a.png", "etag", None, 10, NOW, {}, "image/png")
        if bucket == "images":
            yield source
        elif self.is_rendered:
            spec = next(one for one in (LARGE, SMALL) if one.bucket == bucket)
            made_of = {SOURCE_ETAG: "etag", SPEC_DIGEST: spec.digest}
            yield replace(source, key=spec.key_for("a.png"), metadata=made_of)


class Pipeline:
    source_bucket = "images"
    delete_renditions = False
    renditions = (LARGE, SMALL)
    spec_digest = "specs"
    first_partition = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

    def is_picture(self, key: str) -> bool:
        return key.endswith(".png")


STATE = letter_identity("etag", "specs")
ANNOUNCED = completion_identity(Status.RENDERED, STATE)
REFUSED = completion_identity(Status.REJECTED, STATE)


@pytest.mark.parametrize(
    ("status", "newest"),
    [
        (Status.RENDERED, ANNOUNCED),
        (Status.RENDERED, None),
        (Status.RENDERED, REFUSED),
        (Status.RENDERED, completion_identity(Status.RENDERED, letter_identity("old", "specs"))),
        (Status.RENDERED, completion_identity(Status.RENDERED, letter_identity("etag", "old"))),
        (Status.REJECTED, REFUSED),
        (Status.REJECTED, None),
        (Status.REJECTED, ANNOUNCED),
    ],
)
def test_reconciliation_finds_an_object_whose_event_was_not_sent(
    status: Status, newest: str | None
) -> None:
    is_rendered = status is Status.RENDERED
    is_open = newest != completion_identity(status, STATE)
    letters = Index({} if is_rendered else {b"images/a.png": STATE})
    announced = Index({b"images/a.png": newest} if newest else {})

    def found(scope: Scope) -> tuple[list[str], Counter[str]]:
        listed: Counter[str] = Counter()
        store: Any = Store(is_rendered=is_rendered)
        pipeline: Any = Pipeline()
        open_ones = unreconciled_objects(
            store, pipeline, letters, pipeline.renditions, scope, listed
        )
        return [item.key for item, _ in open_ones], listed

    keys, listed = found(Scope(announced=announced))
    assert keys == (["a.png"] if is_open else [])
    reason = CURRENT if is_rendered else ANSWERED
    assert listed[reason] == (not is_open)
    assert found(Scope()) == ([], Counter({reason: 1})), "without completion events"
    announced.is_complete = False
    assert found(Scope(announced=announced))[0] == [], "an incomplete index can't tell"
