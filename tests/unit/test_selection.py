"""Which keys globs select, also of hostile keys."""

import fnmatch
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resize_pipeline.errors import UserError
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.renditions.selection import GLOBS_MAX, is_selected, matches
from resize_pipeline.renditions.spec import Rendition


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("*.jpg", ["a.jpg", ".jpg"], ["a/b.jpg", "a.JPG", "a.jpg2"]),
        ("**/*.jpg", ["a.jpg", "a/b.jpg", "a/b/c.jpg"], ["a.png", "a.jpg/b"]),
        ("photos/**", ["photos", "photos/a", "photos/a/b"], ["photo", "x/photos/a", "photosa"]),
        ("photos/*/full/*", ["photos/a/full/b"], ["photos/a/b/full/c", "photos/full/b"]),
        ("a/**/b/**/c", ["a/b/c", "a/x/b/y/z/c", "a/b/b/c/c"], ["a/c", "a/b", "b/c"]),
        ("**", ["a", "a/b", "", "日本/🌹"], []),
        (
            "user-?/[0-9][!a]*",
            ["user-1/0b", "user-x/9zz"],
            ["user-12/0b", "user-1/0a", "user-1/ab"],
        ),
        ("a.b", ["a.b"], ["axb", "a.b\n"]),
        ("*", ["a\nb", "🌹", " "], ["a/b"]),
        ("[", ["["], ["]"]),
    ],
)
def test_globs_match_whole_keys(glob: str, yes: Sequence[str], no: Sequence[str]) -> None:
    assert [key for key in yes if not matches(key, glob)] == []
    assert [key for key in no if matches(key, glob)] == []


def naive(key: Sequence[str], glob: Sequence[str]) -> bool:
    if not glob:
        return not key
    if glob[0] == "**":
        return any(naive(key[skip:], glob[1:]) for skip in range(len(key) + 1))
    return bool(key) and fnmatch.fnmatchcase(key[0], glob[0]) and naive(key[1:], glob[1:])


SEGMENTS = st.lists(st.sampled_from(["a", "b", "ab", "ba"]), min_size=1, max_size=7)
GLOBS = st.lists(st.sampled_from(["**", "*", "a", "b", "a*", "*b", "?"]), min_size=1, max_size=6)


@given(key=SEGMENTS, glob=GLOBS)
def test_it_agrees_with_a_matcher_that_tries_everything(key: list[str], glob: list[str]) -> None:
    assert matches("/".join(key), "/".join(glob)) == naive(key, glob)


def test_hostile_keys_cost_little() -> None:
    """With one regular expression for the glob each of these would take for ever."""
    assert not matches("a" * 1024, "*".join("a" * 30) + "*b")
    assert not matches("a/" * 511 + "a", "**/a/**/a/**/a/**/a/**/a/**/a/**/b")
    assert not matches("a" * 1024, "**/" + "?*" * 100 + "b")


def test_what_is_excluded_is_not_selected() -> None:
    assert is_selected("a.jpg", (), ())
    assert is_selected("photos/a.jpg", ("photos/**", "x/**"), ("**/*.png",))
    assert not is_selected("photos/a.png", ("photos/**", "x/**"), ("**/*.png",))
    assert not is_selected("other/a.jpg", ("photos/**", "x/**"), ())


def rendition(**fields) -> Rendition:
    return Rendition(name="one", width=1, height=1, bucket="bucket", **fields)


def test_the_keys_leave_the_digest_of_objects_alone_but_not_the_code_version() -> None:
    plain, some, others = rendition(), rendition(match=["a/**"]), rendition(exclude=["a/**"])
    assert plain.digest == some.digest == others.digest == plain.code_version
    assert len({one.code_version for one in (plain, some, others)}) == 3
    assert rendition(match="a/**") == some


@pytest.mark.parametrize(
    "value",
    ["''", "[]", "[1]", "/a", "a/", "a//b", "a**", "'***'", "{a: b}", "null", f"[{'a, ' * 65}]"],
)
def test_globs_that_can_never_match_are_refused(value: str, tmp_path) -> None:
    assert GLOBS_MAX < 65
    file = tmp_path / "renditions.yaml"
    file.write_text(f"renditions: {{a: {{width: 1, height: 1, bucket: xyz, match: {value}}}}}")
    with pytest.raises(UserError, match=r"'a', match: .*must be a glob such as photos/\*\*/"):
        load_renditions(file, "images")
