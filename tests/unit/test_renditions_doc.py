"""docs/renditions.md matches the code."""

import io
import re
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from resize_pipeline.imaging.functions import imported
from resize_pipeline.imaging.geometry import geometry
from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.renditions.spec import Rendition
from tests.support.pictures import corners, encoded

DOC = (Path(__file__).parents[2] / "docs" / "renditions.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", DOC, re.DOTALL)


def load(tmp_path: Path, text: str) -> tuple[Rendition, ...]:
    file = tmp_path / "renditions.yaml"
    file.write_text(text)
    return load_renditions(file, "images")


def test_the_table_has_every_field_with_its_default() -> None:
    rows = {}
    for line in DOC.split("## Fields")[1].split("## Fit")[0].splitlines():
        if line.startswith("| `"):
            name, _, default, meaning = (cell.strip() for cell in line.strip("|").split("|"))
            rows[name.strip("`")] = default
            assert meaning.endswith((".", "see below."))
    fields = {name: field for name, field in Rendition.model_fields.items() if name != "name"}
    assert set(rows) == set(fields)
    for name, field in fields.items():
        if field.is_required():
            assert rows[name] == "must be given"
        elif field.default in (None, "") or name in {"match", "exclude"}:
            assert "`" not in rows[name].removesuffix("with `transform`")
        else:
            shown = "strip" if field.default == () else str(field.default)
            assert rows[name] == f"`{shown.lower()}`"


def test_the_table_of_fits_is_so() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| (\d+) x (\d+)", DOC.split("## Fit")[1], re.MULTILINE)
    assert len(rows) == 5
    for fit, width, height in rows:
        spec = Rendition(name="r", bucket="out", width=300, height=200, fit=fit)
        assert geometry((3000, 1000), spec).size == (int(width), int(height))


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "yaml"])
def test_the_specs_can_be_loaded(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text)


def test_the_transform_signs_the_lower_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = [text for kind, text in BLOCKS if kind == "python"]
    (tmp_path / "signing.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    [signed] = load(tmp_path, [text for kind, text in BLOCKS if "transform" in text][-1])
    assert signed.transform == "signing:sign"
    plain = signed.model_copy(update={"name": "plain", "transform": None, "version": None})
    data = encoded(corners(600, 400), "PNG")
    one, other = (
        Image.open(io.BytesIO(result.data)).convert("RGB")
        for result in render(data, [signed, plain], max_pixels=10**6)
    )
    imported.cache_clear()
    left, top, right, bottom = ImageChops.difference(one, other).getbbox()
    assert left > 300
    assert top > 200
    assert (right, bottom) <= (600, 400)
