"""Lines that name an extra: it holds what is missing, and with it the line is gone."""

import importlib.util
import re
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from pydantic import ValidationError

from resize_pipeline import validators
from resize_pipeline.errors import UserError
from resize_pipeline.renditions import file
from resize_pipeline.settings import Settings

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
SPEC = "renditions:\n  small: {{width: 9, height: 9, bucket: small-bucket{field}}}\n"


def jpegli(folder: Path) -> None:
    spec = folder / "renditions.yaml"
    spec.write_text(SPEC.format(field=", jpeg_encoder: jpegli, format: jpeg"))
    file.load_renditions(spec, "images")


def analysis(name: str) -> Callable[[Path], None]:
    def load(folder: Path) -> None:
        spec = folder / "renditions.yaml"
        spec.write_text(SPEC.format(field="") + f"analyses: {{{name}: }}\n")
        file.load_analyses(spec, "catalog")

    return load


def catalog(_: Path) -> None:
    Settings(catalog_bucket="catalog")


@pytest.mark.parametrize(
    ("module", "work"),
    [
        ("pyjpegli", jpegli),
        ("blurhash_rs", analysis("blurhash")),
        ("imagehash", analysis("perceptual_hash")),
        ("deltalake", catalog),
    ],
)
def test_the_extra_that_a_line_names_holds_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, work: Callable[[Path], None]
) -> None:
    with monkeypatch.context() as patch:
        for where in (file, validators):
            patch.setattr(
                where,
                "find_spec",
                lambda name: None if name == module else importlib.util.find_spec(name),
            )
        with pytest.raises((UserError, ValidationError)) as refused:
            work(tmp_path)
    [extra] = re.findall(r"pip install 'resize-pipeline\[(\w+)\]'", str(refused.value))
    packages = [re.split(r"[<>=!\[;]", one)[0] for one in PROJECT["optional-dependencies"][extra]]
    files = [str(one) for package in packages for one in metadata.files(package) or ()]
    assert [one for one in files if re.match(rf"{module}[./]", one)]
    work(tmp_path)
