"""docs/api.md says of each public object what its docstring says."""

import re
from types import ModuleType

import pytest

from tests.support.scripts import ci_script


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return ci_script("api_doc")


def test_the_page_is_what_make_docs_writes(generator: ModuleType) -> None:
    assert generator.PAGE.read_text() == generator.page(), "run `make docs`"


def test_every_public_object_is_described(generator: ModuleType) -> None:
    page = generator.PAGE.read_text()
    for _, objects in generator.PUBLIC.values():
        for path in objects:
            [text] = re.findall(
                rf"^### `\w+`\n\n`{path}`\n\n(.+?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL
            )
            assert text.strip().endswith((".", "```"))
