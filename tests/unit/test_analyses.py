"""What analyses find out about pictures of every kind, and which answers are refused."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from resize_pipeline.errors import UserError
from resize_pipeline.imaging import analysing
from resize_pipeline.imaging.protocol import MalformedError, check_analyses
from resize_pipeline.imaging.render import describe, render
from resize_pipeline.renditions.analyses import (
    BUILT_IN,
    ITEMS_MAX,
    TEXT_MAX,
    Analysed,
    Analysis,
    is_answer,
    problem_of,
)
from resize_pipeline.renditions.facts import Facts
from resize_pipeline.renditions.file import load_analyses, load_renditions
from resize_pipeline.renditions.spec import Rendition
from tests.support.pictures import detailed, encoded

ALL = tuple(Analysis(name=name) for name in BUILT_IN)
SPEC = Rendition(name="small", width=64, height=64, bucket="small-bucket")
PHOTO = detailed(300, 200)


def animation() -> bytes:
    file = io.BytesIO()
    frames = [PHOTO.resize((60, 40)), Image.new("RGB", (60, 40), "red")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


PICTURES: dict[str, bytes] = {
    "JPEG": encoded(PHOTO, "JPEG"),
    "grey JPEG": encoded(PHOTO.convert("L"), "JPEG"),
    "CMYK JPEG": encoded(PHOTO.convert("CMYK"), "JPEG"),
    "alpha PNG": encoded(PHOTO.convert("RGBA"), "PNG"),
    "transparent PNG": encoded(Image.new("RGBA", (50, 50), (0, 0, 0, 0)), "PNG"),
    "palette PNG": encoded(PHOTO.quantize(16), "PNG"),
    "bilevel PNG": encoded(PHOTO.convert("1"), "PNG"),
    "16-bit PNG": encoded(Image.new("I;16", (40, 30), 30_000), "PNG"),
    "animation": animation(),
    "1 x 1": encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
    "2 x 2": encoded(Image.new("L", (2, 2), 7), "PNG"),
    "very wide": encoded(PHOTO.resize((5000, 2)), "PNG"),
    "very tall": encoded(PHOTO.resize((1, 3000)), "PNG"),
}


def found_in(data: bytes) -> dict[str, Any]:
    """Return all values, of which none may have failed."""
    facts = describe(data, max_pixels=10**8, analyses=ALL)
    assert is_answer(ALL, facts.analyses)
    assert not [one.error for one in facts.analyses if one.error]
    return {name: value for one in facts.analyses for name, value in one.values.items()}


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_picture_has_all_values(name: str) -> None:
    values = found_in(PICTURES[name])
    assert set(values) == {column for one in ALL for column in one.columns}
    assert 0 <= values["brightness"] <= 1
    assert 0 <= values["entropy"] <= 8
    assert len(values["perceptual_hash"]) == 64
    assert all(len(colour) == 7 for colour in values["dominant_colours"])
    assert (values["sharpness"] is None) == (name in {"1 x 1", "2 x 2", "very wide", "very tall"})


@pytest.mark.parametrize("name", PICTURES)
def test_analyses_change_no_rendition(name: str) -> None:
    with_them = render(PICTURES[name], [SPEC], max_pixels=10**8, analyses=ALL)
    without = render(PICTURES[name], [SPEC], max_pixels=10**8)
    assert is_answer(ALL, with_them[0].source.analyses if with_them[0].source else ())
    # A JPEG is decoded as large as the largest thing that is made of it.
    if "JPEG" not in name:
        assert with_them[0].data == without[0].data


def test_values_tell_pictures_apart() -> None:
    photo = found_in(encoded(PHOTO, "PNG"))
    again = found_in(encoded(PHOTO.resize((150, 100)), "JPEG"))
    other = found_in(encoded(PHOTO.transpose(Image.Transpose.ROTATE_180), "PNG"))

    def apart(one: Mapping[str, Any]) -> int:
        return (int(photo["perceptual_hash"], 16) ^ int(one["perceptual_hash"], 16)).bit_count()

    assert apart(again) < 16 < apart(other)
    soft = found_in(encoded(PHOTO.resize((30, 20)).resize((300, 200)), "PNG"))
    assert soft["sharpness"] < photo["sharpness"] / 2
    white, red = (
        found_in(encoded(Image.new("RGB", (99, 99), one), "PNG")) for one in ("white", "red")
    )
    assert (white["brightness"], white["highlights"], white["entropy"]) == (1, 1, 0)
    assert red["dominant_colours"] == ["#ff0000"]


def test_an_analysis_that_fails_says_why_and_costs_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_: object) -> dict[str, object]:
        msg = "no such wave" + "x" * 5000
        raise ValueError(msg)

    def wrong(_: object) -> dict[str, object]:
        return {"entropy": float("nan")}

    monkeypatch.setattr(
        analysing,
        "_BUILT_IN",
        analysing._BUILT_IN | {"blurhash": broken, "entropy": wrong},
    )
    [one] = render(PICTURES["JPEG"], [SPEC], max_pixels=10**8, analyses=ALL)
    assert one.source
    assert is_answer(ALL, one.source.analyses)
    found = {each.name: each for each in one.source.analyses}
    assert (found["blurhash"].error or "").startswith("ValueError: no such wave")
    assert found["entropy"].error == "column entropy: must be a finite number, or None"
    assert found["sharpness"].values


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("entropy", {"entropy": float("inf")}),
        ("entropy", {"entropy": True}),
        ("entropy", {"entropy": "1"}),
        ("entropy", {"entropy": [1.0]}),
        ("entropy", {}),
        ("entropy", {"entropy": 1.0, "other": 1.0}),
        ("blurhash", {"blurhash": "x" * (TEXT_MAX + 1)}),
        ("blurhash", {"blurhash": "\ud800"}),
        ("dominant_colours", {"dominant_colours": ["#ffffff"] * (ITEMS_MAX + 1)}),
        ("dominant_colours", {"dominant_colours": [["#ffffff"]]}),
        ("dominant_colours", {"dominant_colours": [None]}),
    ],
)
def test_an_answer_that_no_column_allows_is_refused(name: str, values: dict[str, Any]) -> None:
    asked = Analysis(name=name)
    assert problem_of(asked, values)
    lie = Analysed.model_construct(name=name, digest=asked.digest, values=values, error=None)
    facts = Facts.model_construct(analyses=(lie,))
    with pytest.raises(MalformedError, match=f"other analyses than {name}"):
        check_analyses((asked,), facts)


def test_results_of_other_analyses_are_refused() -> None:
    one = Analysed(name="entropy", digest=ALL[-1].digest, values={"entropy": 1.0})
    assert is_answer(ALL[-1:], (one,))
    assert not is_answer(ALL[-1:], ())
    assert not is_answer(ALL[:1], (one,))
    assert not is_answer(ALL[-1:], (one.model_copy(update={"digest": "0" * 16}),))
    assert not is_answer(ALL[-1:], (one.model_copy(update={"error": "why"}),))


GOOD = "renditions:\n  small: {width: 9, height: 9, bucket: small-bucket}\n"


def loaded(folder: Path, text: str, bucket: str = "catalog") -> list[str]:
    file = folder / "renditions.yaml"
    file.write_text(text)
    load_renditions(file, "images")
    return [one.name for one in load_analyses(file, bucket)]


def test_the_spec_file_names_them(tmp_path: Path) -> None:
    assert loaded(tmp_path, GOOD) == []
    assert loaded(tmp_path, GOOD, "") == []
    assert loaded(tmp_path, f"{GOOD}analyses:\n") == []
    assert loaded(tmp_path, f"{GOOD}analyses:\n  entropy:\n  blurhash: {{}}\n") == [
        "entropy",
        "blurhash",
    ]


@pytest.mark.parametrize(
    ("analyses", "bucket", "said"),
    [
        ("{beauty: }", "catalog", "must be one of blurhash, perceptual_hash"),
        ("{entropy: 5}", "catalog", "analysis 'entropy': 5 must be a mapping of fields"),
        ("{entropy: {bits: 3}}", "catalog", "bits"),
        ("{entropy: {name: sharpness}}", "catalog", "not a field, the key is the name"),
        ("[entropy]", "catalog", "not a file of renditions"),
        ("{7: }", "catalog", "analysis"),
        ("{entropy: }", "", "set CATALOG_BUCKET to a bucket of its own, or remove 'analyses'"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, analyses: str, bucket: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        loaded(tmp_path, f"{GOOD}analyses: {analyses}\n", bucket)
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
