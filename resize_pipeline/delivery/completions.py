"""The messages that tell other applications what became of an object. Pure.

Each is a CloudEvent in structured mode (CloudEvents 1.0, and its Kafka protocol binding), whose
data docs/completion.schema.json describes.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from resize_pipeline.delivery.batches import Settled, Status
from resize_pipeline.delivery.requests import letter_identity, letter_key
from resize_pipeline.delivery.row_states import digests
from resize_pipeline.errors import one_line
from resize_pipeline.kafka.messages import Outgoing
from resize_pipeline.renditions.analyses import Analysed
from resize_pipeline.renditions.spec import Rendition

TYPE_PREFIX = "resize_pipeline.object."
CONTENT_TYPE = b"application/cloudevents+json; charset=UTF-8"
REASON_MAX = 1000
"""Most characters of a reason: brokers limit messages."""

VALUES_MAX = 500_000
"""Most characters of all values of analyses: Kafka's own limit of a message is a mebibyte."""

_STATUSES = {
    Status.RENDERED: "rendered",
    Status.CURRENT: "rendered",
    Status.REJECTED: "rejected",
    Status.MISSING: "missing",
}


@dataclass(frozen=True)
class Terms:
    """What the messages of a run say that does not depend on the object.

    Attributes:
        bucket: the source bucket.
        renditions: the specs of all renditions.
        spec_digest: digest of all of them.
        run: id of the run.
    """

    bucket: str
    renditions: Sequence[Rendition]
    spec_digest: str
    run: str


def completion_identity(status: Status, state: str) -> str:
    """Return what a message answers for.

    Args:
        status: the outcome.
        state: the state of the object and the specs, as `letter_identity` returns it.
    """
    return f"{_STATUSES[status]} {state}"


def completion(
    settled: Settled, terms: Terms, time: dt.datetime, analyses: Sequence[Analysed] = ()
) -> Outgoing | None:
    """Return the message about an object's outcome.

    Args:
        settled: the outcome, after the last look at the source.
        terms: as in `Terms`.
        time: when the outcome is announced.
        analyses: what the catalogue says of its picture.

    Returns:
        The message; None if a later run completes the object.
    """
    status = _STATUSES.get(settled.status)
    if status is None or settled.unwritten:
        return None
    data = _data(settled, status, terms, analyses)
    # The same for a repeated message, by which a consumer knows it.
    name = json.dumps({**data, "run": None}, sort_keys=True).encode(errors="replace")
    event = {
        "specversion": "1.0",
        "id": hashlib.sha256(name).hexdigest()[:32],
        "source": f"s3://{terms.bucket}",
        "subject": settled.request.key,
        "type": f"{TYPE_PREFIX}{status}",
        "time": time.isoformat(timespec="milliseconds"),
        "datacontenttype": "application/json",
        "data": data,
    }
    state = letter_identity(settled.etag, terms.spec_digest, settled.metadata_read)
    identity = completion_identity(settled.status, state).encode(errors="replace")
    headers = [("content-type", CONTENT_TYPE), ("identity", identity)]
    value = json.dumps(event, ensure_ascii=False).encode(errors="replace")
    return letter_key(terms.bucket, settled.request.key), value, headers


def _data(
    settled: Settled, status: str, terms: Terms, analyses: Sequence[Analysed]
) -> dict[str, Any]:
    source = settled.known.source if settled.known else None
    is_rejected = settled.status is Status.REJECTED
    return {
        "bucket": terms.bucket,
        "key": settled.request.key,
        "version": source.version_id if source else None,
        "etag": settled.etag,
        "status": status,
        "error_class": settled.error_class if is_rejected else None,
        "reason": one_line(settled.reason)[:REASON_MAX] if is_rejected else None,
        "renditions": _renditions(settled, terms) if status == "rendered" else [],
        "analyses": _found(analyses) if status == "rendered" else {},
        "run": terms.run,
    }


def _found(analyses: Sequence[Analysed]) -> dict[str, Any]:
    """Return the results of analyses; values that no message has room for are left out."""
    found: dict[str, Any] = {}
    left = VALUES_MAX
    for one in analyses:
        size = len(json.dumps(one.values))
        is_left_out = size > left
        left -= 0 if is_left_out else size
        found[one.name] = {
            "values": None if is_left_out else one.values or None,
            "error": "too large for a message: see the catalogue" if is_left_out else one.error,
        }
    return found


def _renditions(settled: Settled, terms: Terms) -> list[dict[str, Any]]:
    if settled.known is None:
        return []
    source, sizes = settled.known.source, settled.known.sizes
    wanted = digests(terms.renditions, source.key, source.metadata or {})
    return [
        {
            "name": spec.name,
            "uri": f"s3://{spec.bucket}/{spec.key_for(source.key)}",
            "bytes": sizes[spec.name],
            "digest": wanted[spec.name],
        }
        for spec in terms.renditions
        if spec.name in sizes and spec.name in wanted
    ]
