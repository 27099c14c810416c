"""docs/api.md says of each public object what its docstring says."""

import re
from types import ModuleType

import pytest

from tests.support.scripts import REPOSITORY, ci_script


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


def test_the_classes_that_a_dagster_yaml_names_are_public(generator: ModuleType) -> None:
    public = {path for _, objects in generator.PUBLIC.values() for path in objects}
    files = [REPOSITORY / "dagster.yaml", *REPOSITORY.glob("deploy/*/dagster.yaml")]
    named = {
        f"{module}.{name}"
        for file in files
        for module, name in re.findall(
            r"module: (resize_pipeline\S+)\n +class: (\w+)", file.read_text()
        )
    }
    assert len(named) > 3
    assert named <= public
