"""Which keys a rendition is made for: globs, matched in bounded time. Pure.

`wcmatch` and `pathlib` would do, but strangers choose keys, and a regular expression of a whole
glob with several stars takes time that grows with a power of the key's length. The standard
library's `fnmatch` compiles one segment to an expression that never looks back.
"""

import fnmatch
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

GLOBS_MAX = 64
"""Most globs of a list."""
GLOB_MAX_BYTES = 1024
"""Longest glob: S3's limit of a key."""
ANY_SEGMENTS = "**"


def checked_globs(value: object) -> tuple[str, ...]:
    """Return a glob, or a list of globs, as a tuple.

    Raises:
        ValueError: it is none, or a glob that could never match.
    """
    given = [value] if isinstance(value, str) else value
    globs = cast("Sequence[object]", given) if isinstance(given, list | tuple) else ()
    is_long = len(globs) > GLOBS_MAX
    if not globs or is_long or not all(isinstance(one, str) and _is_glob(one) for one in globs):
        msg = (
            f"must be a glob such as photos/**/*.jpg, or a list of at most {GLOBS_MAX}; `**` "
            "stands alone between slashes, and no glob starts or ends with one"
        )
        raise ValueError(msg)
    return tuple(map(str, globs))


def is_selected(key: str, match: Sequence[str], exclude: Sequence[str]) -> bool:
    """Return whether a key matches one of the globs, if there are any, and none of the excluded.

    Args:
        key: the key of a source object.
        match: globs; without any, all keys match.
        exclude: globs of keys that are left out.
    """
    if match and not any(matches(key, one) for one in match):
        return False
    return not any(matches(key, one) for one in exclude)


def matches(key: str, glob: str) -> bool:
    """Return whether a key matches a glob as a whole; case counts.

    `*` stands for any characters but a slash, `?` for one of them, `[a-z]` and `[!a-z]` for one of
    a set, and `**` between slashes for any number of segments, also none.
    """
    wanted, segments = _compiled(glob), key.split("/")
    at = here = 0
    star, resume = -1, 0
    # The last `**` takes one segment more whenever what follows it does not fit: no other choice
    # has to be taken back, so the time is bounded by the product of both lengths.
    while at < len(segments):
        one = wanted[here] if here < len(wanted) else False
        if one is None:
            star, resume = here, at
            here += 1
        elif one and one.fullmatch(segments[at]):
            at, here = at + 1, here + 1
        elif star >= 0:
            resume += 1
            at, here = resume, star + 1
        else:
            return False
    return all(one is None for one in wanted[here:])


@lru_cache(maxsize=1024)
def _compiled(glob: str) -> tuple[re.Pattern[str] | None, ...]:
    """Return an expression for each segment of a glob; None for any number of segments."""
    return tuple(
        None if one == ANY_SEGMENTS else re.compile(fnmatch.translate(one))
        for one in glob.split("/")
    )


def _is_glob(text: str) -> bool:
    segments = text.split("/")
    return (
        all(segments)
        and len(text.encode(errors="replace")) <= GLOB_MAX_BYTES
        and text.isprintable()
        and not any(ANY_SEGMENTS in one and one != ANY_SEGMENTS for one in segments)
    )
