"""The operator's own analyses: what a spec file may say, and what functions may return."""

from pathlib import Path
from typing import Any

import pytest
from deltalake import Schema
from PIL import Image

from resize_pipeline.catalog.columns import SCHEMA, missing_columns
from resize_pipeline.errors import UserError
from resize_pipeline.imaging.own_analyses import results
from resize_pipeline.imaging.protocol import MalformedError, View, split_view
from resize_pipeline.imaging.render import describe, render
from resize_pipeline.renditions.analyses import (
    RESERVED_COLUMNS,
    VALUES_MAX_BYTES,
    Analysis,
    problem_of,
)
from resize_pipeline.renditions.file import load_analyses
from resize_pipeline.renditions.spec import Rendition
from tests.support.pictures import detailed, encoded

MODULE = "tests.support.own_functions"
RED = View((3, 2), bytes((255, 0, 0)) * 6)
BLUE = View((3, 2), bytes((0, 0, 255)) * 6)


def own(function: str, **fields: Any) -> Analysis:
    columns = fields.pop("columns", {"value": "number"})
    return Analysis(
        name="mine", function=f"{MODULE}:{function}", version=1, columns=columns, **fields
    )


REDNESS = own("redness", columns={"redness": "number", "seen": "text"})


def test_a_function_receives_an_image_and_returns_values() -> None:
    red, blue = results(REDNESS, [RED, BLUE])
    assert red.values == {"redness": 255.0, "seen": "RGB (3, 2)"}
    assert blue.values["redness"] == -127.5
    assert red.digest == REDNESS.digest
    large = View((600, 300), bytes(600 * 300 * 3))
    [one] = results(REDNESS, [large])
    assert one.values["seen"] == "RGB (256, 128)", "another function needs a larger view"


def test_a_function_of_batches_receives_a_list() -> None:
    counted = own("counted", columns={"together": "number"}, batch=8)
    assert [one.values for one in results(counted, [RED, BLUE])] == [{"together": 2}] * 2


@pytest.mark.parametrize(
    ("function", "fields", "said"),
    [
        ("raises", {}, r"ValueError: no model for (3, 2)\x1b[31m\ud800"),
        ("leaves", {}, "SystemExit: 3"),
        ("wrong", {"columns": {"number": "number"}}, "column number: must be a finite number"),
        ("too_few", {"batch": 2}, "must return a list of 1, as it was given 1 images"),
        ("redness", {"batch": 2}, "ValueError"),
        ("no_such", {}, "can't be imported: AttributeError"),
        ("MODULE", {}, "can't be imported"),
    ],
)
def test_an_error_belongs_to_the_analysis(function: str, fields: dict[str, Any], said: str) -> None:
    for one in results(own(function, **fields), [RED, BLUE]):
        assert not one.values
        assert said in (one.error or "")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("boolean", [True, False, None], [1, "True"]),
        ("list of number", [[], [1, 2.5], None], [["1"], [True], [float("nan")], 1]),
        ("number", [0, -1.5], [True]),
    ],
)
def test_values_have_the_type_of_their_column(kind: str, good: list[Any], bad: list[Any]) -> None:
    analysis = own("redness", columns={"value": kind})
    assert not [one for one in good if problem_of(analysis, {"value": one})]
    assert all(problem_of(analysis, {"value": one}) for one in bad)


def test_values_are_bounded() -> None:
    analysis = own("redness", columns={"value": "list of text"})
    said = problem_of(analysis, {"value": ["x" * 1000] * 200})
    assert said == f"its values have more than {VALUES_MAX_BYTES} bytes as JSON"
    embedding = own("redness", columns={"value": "list of number"})
    assert not problem_of(embedding, {"value": [-0.12345678901234567] * 4096})


def test_the_digest_changes_with_what_can_change_values() -> None:
    others = [
        own("redness"),
        own("redness", side=300),
        own("redness", columns={"value": "text"}),
        own("wrong"),
        own("redness").model_copy(update={"version": 2}),
        own("redness").model_copy(update={"name": "yours"}),
    ]
    assert len({one.digest for one in others}) == len(others)
    assert own("redness", batch=8).digest == own("redness").digest


def test_built_in_digests_stay() -> None:
    assert Analysis(name="entropy").digest == "803ca50ea7d9e398"


def test_the_catalogue_s_own_columns_are_reserved() -> None:
    assert {one.name for one in SCHEMA} | {"analyses"} == RESERVED_COLUMNS


def test_its_columns_are_added_to_the_table() -> None:
    kinds = ("text", "number", "boolean", "list of text", "list of number")
    analysis = own("redness", columns={f"c{i}": kind for i, kind in enumerate(kinds)})
    added = missing_columns(Schema.from_arrow(SCHEMA), [analysis], "s3://catalog/x")
    assert added
    assert {one.name for one in added} == {"analyses", *analysis.columns}


def test_a_view_is_sent_for_functions_only() -> None:
    picture = encoded(detailed(900, 600), "PNG")
    spec = Rendition(name="small", width=64, height=64, bucket="small-bucket")
    seen: list[Image.Image] = []
    render(picture, [spec], max_pixels=10**8, view_side=300, on_view=seen.append)
    describe(picture, max_pixels=10**8, view_side=300, on_view=seen.append)
    assert [(one.mode, one.size) for one in seen] == [("RGB", (300, 200))] * 2
    render(picture, [spec], max_pixels=10**8, on_view=seen.append)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("side", "size", "pictures"),
    [
        (0, (3, 2), [RED.pixels]),
        (256, None, [RED.pixels]),
        (256, (3, 2), []),
        (2, (3, 2), [RED.pixels]),
        (256, (3, 2), [RED.pixels[1:]]),
    ],
)
def test_another_view_than_asked_for_is_refused(
    side: int, size: tuple[int, int] | None, pictures: list[bytes]
) -> None:
    with pytest.raises(MalformedError, match="a view of"):
        split_view(side, size, pictures)


GOOD = f"function: {MODULE}:redness, version: 1, columns: {{redness: number}}"


def loaded(folder: Path, analyses: str) -> tuple[Analysis, ...]:
    file = folder / "renditions.yaml"
    file.write_text(
        f"renditions: {{small: {{width: 9, height: 9, bucket: small-bucket}}}}\n"
        f"analyses: {analyses}\n"
    )
    return load_analyses(file, "catalog")


def test_the_spec_file_names_functions(tmp_path: Path) -> None:
    [one, built_in] = loaded(tmp_path, f"{{mine: {{{GOOD}, side: 640, batch: 8}}, entropy: }}")
    assert one == Analysis(
        name="mine",
        function=f"{MODULE}:redness",
        version=1,
        columns={"redness": "number"},
        side=640,
        batch=8,
    )
    assert built_in.columns == {"entropy": "number"}


@pytest.mark.parametrize(
    ("analyses", "said"),
    [
        ("{mine: {function: no_colon, version: 1, columns: {a: text}}}", "package.module:function"),
        ("{mine: {function: no_such_package:f, version: 1, columns: {a: text}}}", "PYTHONPATH"),
        (f"{{mine: {{function: {MODULE}:redness, columns: {{a: text}}}}}}", "version: missing"),
        (f"{{mine: {{function: {MODULE}:redness, version: 1}}}}", "columns: missing, must map"),
        (f"{{mine: {{{GOOD}, batch: 0}}}}", "batch: 0 must be greater than or equal to 1"),
        (f"{{mine: {{{GOOD}, side: 5000}}}}", "side: 5000 must be less than or equal to 1024"),
        (f"{{mine: {{{GOOD}, batches: 3}}}}", "did you mean batch?"),
        (f"{{Mine: {{{GOOD}}}}}", "lower-case letters"),
        (f"{{entropy: {{{GOOD}}}}}", "is built in and has no fields"),
        (f"{{mine: {{{GOOD}}}, yours: {{{GOOD}}}}}", "both have 'redness'"),
        (
            f"{{mine: {{function: {MODULE}:redness, version: 1, columns: {{entropy: number}}}}}}",
            "'entropy' is a column of the catalogue",
        ),
        (
            f"{{mine: {{function: {MODULE}:redness, version: 1, columns: {{status: text}}}}}}",
            "'status' is a column of the catalogue",
        ),
        (
            f"{{mine: {{function: {MODULE}:redness, version: 1, columns: {{A b: text}}}}}}",
            "lower-case letters",
        ),
        (
            f"{{mine: {{function: {MODULE}:redness, version: 1, columns: {{a: vector}}}}}}",
            "columns.a: 'vector' must be 'text', 'number'",
        ),
    ],
)
def test_what_is_wrong_with_one_is_one_line(tmp_path: Path, analyses: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        loaded(tmp_path, analyses)
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
