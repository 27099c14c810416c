"""docs/settings.md says about each setting what the settings class says."""

from types import ModuleType

import pytest

from resize_pipeline.settings import Settings
from tests.support.scripts import ci_script


@pytest.fixture
def generator() -> ModuleType:
    return ci_script("settings_doc")


def test_the_page_is_what_make_docs_writes(generator: ModuleType) -> None:
    assert generator.PAGE.read_text() == generator.page(), "run `make docs`"


def test_every_setting_has_one_row(generator: ModuleType) -> None:
    rows = [line for line in generator.page().splitlines() if line.startswith("| `")]
    names = [line.split("`")[1] for line in rows]
    assert names == [name.upper() for name in Settings.model_fields]
    for name, line in zip(Settings.model_fields, rows, strict=True):
        field = Settings.model_fields[name]
        assert line.endswith(f"| {field.description} |")
        assert field.description
        assert field.description.endswith(".")


def test_defaults_are_shown(generator: ModuleType) -> None:
    page = generator.page()
    assert "| `DELETE_RENDITIONS` | `false` |" in page
    assert "| `RUN_MAX_BYTES` | `4294967296` |" in page
    assert "| `WEBHOOK_URL` |  |" in page
