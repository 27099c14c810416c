"""docs/architecture.md is true: its folders, and the files on the path of an event."""

import re

from tests.unit.test_imports import FILES, PACKAGE, REPOSITORY, imports, names

DOC = (REPOSITORY / "docs" / "architecture.md").read_text()


def section(title: str) -> str:
    return DOC.split(f"\n## {title}\n")[1].split("\n## ")[0]


def place_of(name: str) -> str:
    """The file or folder of the package that a module lies in."""
    first = name.split("/", maxsplit=1)[0]
    return first if first.endswith(".py") else f"{first}/"


def test_every_folder_is_in_the_table_and_imports_go_down_it() -> None:
    rows = [line for line in section("Folders").splitlines() if line.startswith("| `")]
    floor = {
        place: number
        for number, row in enumerate(rows)
        for place in re.findall(r"`([a-z_]+(?:/|\.py))`", row.split("|")[1])
    }
    assert set(floor) == {place_of(name) for name in names(FILES)} - {"__init__.py", "__main__.py"}
    for file, name in zip(FILES, names(FILES), strict=True):
        for module in imports(file):
            parts = module.split(".")[1:2] if module.startswith("resize_pipeline.") else []
            for target in (place for part in parts for place in (f"{part}/", f"{part}.py")):
                if target in floor and place_of(name) in floor:
                    assert floor[place_of(name)] <= floor[target], f"{name} imports {module}"


def test_the_path_of_an_event_names_files_in_order() -> None:
    steps = re.findall(r"^(\d+)\. (.*)$", section("The path of an event"), re.MULTILINE)
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))
    named = [re.findall(r"`([\w/]+\.py)`", text)[0] for _, text in steps]
    assert all((PACKAGE / name).is_file() for name in named)
    # MinIO alone is entered twice: for the original, and for the rendition.
    assert [name for name in named if named.count(name) > 1] == ["resources/minio.py"] * 2
    assert named[-1] == "resources/minio.py"
