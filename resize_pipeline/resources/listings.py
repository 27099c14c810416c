"""Checks what a listing says about each object, and that it moves on."""

import datetime as dt
from collections.abc import Iterable, Iterator

from minio.datatypes import Object

from resize_pipeline.resources.bounded_http import AnswerError, found_key, is_tag

SIZE_MAX = 2**63 - 1


def checked(objects: Iterable[Object], prefix: str) -> Iterator[Object]:
    """Yield the objects of a listing.

    Args:
        objects: what the client read.
        prefix: the prefix that was asked for.

    Raises:
        AnswerError: an object is not one that was asked for, has an impossible field, or the
            listing repeats itself.
    """
    found_key()
    # Brent's algorithm finds any cycle with one remembered key, whatever the server's order is.
    remembered: str | None = None
    power = steps = 1
    for one in objects:
        found_key()
        key = one.object_name
        if not key or not key.startswith(prefix):
            msg = f"lists a key that does not start with {prefix!r}"
            raise AnswerError(msg)
        if key == remembered:
            msg = f"lists {key!r} again and again"
            raise AnswerError(msg)
        if steps == power:
            remembered, power, steps = key, power * 2, 0
        steps += 1
        _check(one, key)
        yield one


def _check(one: Object, key: str) -> None:
    if not isinstance(one.last_modified, dt.datetime):
        msg = f"lists {key!r} without the time of its last change"
        raise AnswerError(msg)
    if not 0 <= (one.size or 0) <= SIZE_MAX:
        msg = f"lists {key!r} with an impossible size"
        raise AnswerError(msg)
    if not is_tag(one.etag or "") or not is_tag(one.version_id or ""):
        msg = f"lists {key!r} with an ETag or version that is not printable ASCII"
        raise AnswerError(msg)
